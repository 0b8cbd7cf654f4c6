// The ranks of a job and the messages between them, over MPI; memory that ranks of a host share is
// in train/parallel/comm_shared.h. Only the files comm*.c include mpi.h.
//
//     Comm comm;
//     TRY(comm_start(&comm));                       // collective, once
//     status = comm_agree(&comm, load(&model));     // every phase that can fail ends like this
//     comm_sum_doubles(&comm, &loss, 1);
//     comm_stop(&comm, status);                     // collective, also after an error
//
// Every function is collective over all ranks, except where its comment says "not collective" and
// the three that pass bytes from one rank to another. So a rank must not return early between two
// of them: what can fail on one rank alone goes through comm_agree(). An error inside MPI itself (a
// lost peer) cannot be agreed on: the rank that sees it prints it and aborts the job.
#ifndef MHA2MLA_TRAIN_PARALLEL_COMM_H
#define MHA2MLA_TRAIN_PARALLEL_COMM_H

#include "base/status.h"

#include <stdint.h>

enum { COMM_HOST_BYTES = 64 };

typedef struct Comm {
    int rank, size;
    char host[COMM_HOST_BYTES];
    int64_t message_bytes; // of a message at most, as MPI counts in ints; tests lower it
    bool may_overlap;      // MPI may be called from another thread than the one that started it
    struct CommTransfer *blocking; // owned: for the calls that wait
} Comm;

// Starts MPI, with or without mpirun or srun; names the rank for CHECK, silences all logs but rank
// 0's. BAD_INPUT for tasks of srun that do not find each other (train/parallel/launcher.h).
Status comm_start(Comm *out);

// Leaves MPI. If `status` is an error, all ranks have its text (comm_agree) and rank 0 says it.
void comm_stop(Comm *comm, Status status);

// Starts MPI before anything can go wrong, so that ranks do not all name the same mistake, runs
// `body` under the watchdogs (train/parallel/watch.h), and leaves. BAD_INPUT if `program`, its
// version and what it is to do, is not the same on all ranks.
Status comm_run(const char *program, Status (*body)(const Comm *comm, void *context),
                void *context);

// All ranks return the status of the first rank that failed, with its error text, in which the
// rank and its host are named unless all ranks failed; STOPPED if none failed and one was stopped;
// else OK.
Status comm_agree(const Comm *comm, Status own);

// The same for work of some ranks alone: the others pass OK, and "all ranks failed" means all that
// take part.
Status comm_agree_of(const Comm *comm, bool takes_part, Status own);

// Whether `own` is true on all ranks.
bool comm_all(const Comm *comm, bool own);

// The hosts of all ranks.
void comm_gather_hosts(const Comm *comm, char (*hosts)[COMM_HOST_BYTES]); // [size]

// Sums and maxima over ranks, in place, on every rank: values [count].
void comm_sum_doubles(const Comm *comm, double *values, int64_t count);
void comm_max_doubles(const Comm *comm, double *values, int64_t count);

// A copy of rank `root`'s bytes on every rank.
void comm_broadcast(const Comm *comm, void *bytes, int64_t size_bytes, int root);

// Bytes from one rank to another, in the order of the calls; the receiver asks for as many as were
// sent. Sending may wait until the other rank receives. bytes == NULL receives and drops them.
void comm_send(const Comm *comm, const void *bytes, int64_t size_bytes, int to);
void comm_receive(const Comm *comm, void *bytes, int64_t size_bytes, int from);

// A rank whose message has arrived and is not received yet; waits for one if `wait`, else -1 if
// there is none. Not collective.
int comm_probe(const Comm *comm, bool wait);

// A reduce-scatter: each rank gets the sum over ranks 0..n_senders-1 of its own share of the
// bucket, added in this order. The additions of every float are the same for any number of ranks,
// so that several calls with fewer senders each add up to the same bits.
typedef struct CommReduce {
    float *sum;          // [own share]; may be the share's place in the bucket, if fresh
    const float *bucket; // [count]
    int64_t count;
    int n_senders;
    bool fresh;   // sum is written (=), not added to (+=)
    bool as_bf16; // buckets are sent, and this rank's is rounded, as bfloat16; sums are float32
    void *buffer; // [comm_reduce_bytes()], the transfer's alone until comm_reduce_end()
} CommReduce;

// Not collective.
int64_t comm_reduce_bytes(int64_t count, int n_ranks, int n_senders, bool as_bf16);
void comm_reduce_scatter(const Comm *comm, const CommReduce *reduce);

// [first, first + count) of a bucket.
typedef struct CommRange {
    int64_t first, count;
} CommRange;

// An all-gather of one bucket: every rank's share to all ranks. As bfloat16 the others receive this
// rank's share rounded, but for the exact ranges; the share itself is never rounded.
//
//     message of a share:  [ 2 bytes a number, rounded | 4 bytes a number of an exact range | ... ]
typedef struct CommGather {
    float *bucket; // [count]
    int64_t count;
    bool as_bf16;           // else all is sent as it is, and what follows is not used
    const CommRange *exact; // borrowed [n_exact], ascending: sent as float32
    int n_exact;
    void *buffer; // [comm_gather_bytes()], the transfer's alone until comm_gather_end()
} CommGather;

// Not collective.
int64_t comm_gather_bytes(const CommGather *gather);
void comm_all_gather(const Comm *comm, const CommGather *gather);

// The same two without waiting. Several may be pending, begun in the same order on all ranks; until
// all are done no other collective function of this header may be called.
typedef struct CommTransfer {
    void *request;                   // owned: an MPI_Request
    int *counts, *offsets;           // owned [size], in numbers: what is sent to each rank
    int *from_counts, *from_offsets; // owned [size], likewise: what arrives from each rank
} CommTransfer;

Status comm_transfer_create(CommTransfer *out, const Comm *comm); // not collective
void comm_transfer_release(CommTransfer *transfer);

void comm_reduce_begin(CommTransfer *transfer, const Comm *comm, const CommReduce *reduce);
void comm_gather_begin(CommTransfer *transfer, const Comm *comm, const CommGather *gather);

// Whether a transfer that was begun is done. MPI makes progress in this call. Not collective.
bool comm_transfer_is_done(CommTransfer *transfer);

// Adds up what has arrived, or widens it into the bucket, once the transfer is done. Not
// collective.
void comm_reduce_end(const Comm *comm, const CommReduce *reduce);
void comm_gather_end(const Comm *comm, const CommGather *gather);

// Largest bucket of all these, in floats: 16 MiB keep the network busy and are little beside a
// model.
enum { COMM_LARGEST_BUCKET = 1 << 22 };

// A rank's share of a bucket, as comm_range() of its blocks of COMM_SHARE_BLOCK floats, the last of
// which may be shorter. Not collective.
enum { COMM_SHARE_BLOCK = 1024 };
void comm_share(int64_t count, int rank, int n_ranks, int64_t *first, int64_t *own_count);

// The share [first, first + count) of `total` items that belongs to `rank`: the remainder goes one
// each to the first ranks. Not collective.
void comm_range(int64_t total, int rank, int n_ranks, int64_t *first, int64_t *count);

#endif
