// The ranks of a run: what this program says over MPI, with train/parallel/comm_shared.h what it
// shares by it. Nothing but train/comm*.c includes mpi.h.
//
//     Comm comm;
//     TRY(comm_start(&comm));                       // collective, once
//     status = comm_agree(&comm, load(&model));     // every phase that can fail ends like this
//     comm_sum_doubles(&comm, &loss, 1);
//     comm_stop(&comm, status);                     // collective, also after an error
//
// Every function is collective over all ranks but those marked so and the three that pass bytes
// from one rank to another. An error inside MPI itself (a lost peer) cannot be agreed on: it is
// printed by the rank that sees it and aborts the job.
#ifndef MHA2MLA_TRAIN_PARALLEL_COMM_H
#define MHA2MLA_TRAIN_PARALLEL_COMM_H

#include "base/status.h"

#include <stdint.h>

enum { COMM_HOST_BYTES = 64 };

typedef struct Comm {
    int rank, size;
    char host[COMM_HOST_BYTES];
    int64_t message_bytes; // the most handed to MPI at once, whose counts are ints; tests lower it
    bool may_overlap;      // MPI may be called from another thread than the one that started it
    struct CommTransfer *blocking; // owned: of the calls that wait
} Comm;

// Starts MPI (alone or under mpirun or srun), names the rank for CHECK, silences all logs but rank
// 0's.
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

// The same of what some ranks alone did; the others bring OK.
Status comm_agree_of(const Comm *comm, bool takes_part, Status own);

// Whether it holds on all ranks.
bool comm_all(const Comm *comm, bool own);

// The hosts of all ranks.
void comm_gather_hosts(const Comm *comm, char (*hosts)[COMM_HOST_BYTES]); // [size]

// Sums over ranks, in place, on every rank.
void comm_sum_doubles(const Comm *comm, double *values, int64_t count);
void comm_max_doubles(const Comm *comm, double *values, int64_t count);

// A copy of rank `root`'s bytes on every rank.
void comm_broadcast(const Comm *comm, void *bytes, int64_t size_bytes, int root);

// From one rank to another, in order; the receiver asks for as many bytes as were sent. Sending may
// wait until the other rank receives. bytes == NULL receives and drops them.
void comm_send(const Comm *comm, const void *bytes, int64_t size_bytes, int to);
void comm_receive(const Comm *comm, void *bytes, int64_t size_bytes, int from);

// A rank that has sent something which is not received yet; -1 if there is none and `wait` is not
// set.
int comm_sender(const Comm *comm, bool wait);

// A bucket whose sum over ranks is wanted, each rank for its own share: those of ranks
// 0..n_senders-1 are added, in this order. Float by float the same additions are done for any
// number of ranks, so that rounds of fewer senders add up to the same bits.
typedef struct CommReduce {
    float *sum;          // [own share] alone; may lie in the bucket, at the share's place, if fresh
    const float *bucket; // [count]
    int64_t count;
    int n_senders;
    bool fresh;   // sum is set, not added to
    bool as_bf16; // every bucket is rounded to bfloat16, also the own one; added up in float32
    void *buffer; // comm_reduce_bytes(), of nobody else until the end
} CommReduce;

int64_t comm_reduce_bytes(int64_t count, int n_ranks, int n_senders, bool as_bf16);
void comm_reduce_scatter(const Comm *comm, const CommReduce *reduce);

// All-gather of one bucket: every rank's own share to all.
void comm_all_gather(const Comm *comm, float *bucket, // [count]
                     int64_t count);

// The same two without waiting. Several may be under way, begun in the same order on all ranks;
// until all are done nothing else in this header that is collective may be called.
typedef struct CommTransfer {
    void *request;                   // owned: MPI's handle
    int *counts, *offsets;           // owned [size]: the ranks' shares, or what is sent of them
    int *from_counts, *from_offsets; // owned [size]: what arrives
} CommTransfer;

Status comm_transfer_create(CommTransfer *out, const Comm *comm); // not collective
void comm_transfer_release(CommTransfer *transfer);

void comm_reduce_begin(CommTransfer *transfer, const Comm *comm, const CommReduce *reduce);
void comm_gather_begin(CommTransfer *transfer, const Comm *comm, float *bucket, int64_t count);

// Whether what was begun is done; asking is what makes it go on.
bool comm_transfer_is_done(CommTransfer *transfer);

// Adds what has arrived, once that is done. Not collective.
void comm_reduce_end(const Comm *comm, const CommReduce *reduce);

// Largest bucket of all these, in floats: 16 MiB are enough to keep the network busy and little
// beside a model.
enum { COMM_LARGEST_BUCKET = 1 << 22 };

// A rank's share of a bucket, as comm_range() of its blocks of COMM_SHARE_BLOCK floats, the last of
// which may be shorter. Not collective.
enum { COMM_SHARE_BLOCK = 1024 };
void comm_share(int64_t count, int rank, int n_ranks, int64_t *first, int64_t *own_count);

// The share [first, first + count) of `total` items that belongs to `rank`: the remainder goes one
// each to the first ranks. Not collective.
void comm_range(int64_t total, int rank, int n_ranks, int64_t *first, int64_t *count);

#endif
