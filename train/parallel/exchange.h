// Reduce-scatters and all-gathers of buckets (train/parallel/comm.h) beside the caller's computing.
//
//     Exchange *exchange;
//     TRY(exchange_start(&exchange, &comm, buffers, buffer_bytes, overlaps));
//     ... gradients of a bucket are final ...
//     exchange_reduce(exchange, &reduce);         // returns at once
//     ... more computing, more buckets ...
//     exchange_wait_all(exchange);                // all sums are complete
//     int64_t ticket = exchange_gather(exchange, &gather);
//     ... computing that does not read the bucket ...
//     exchange_wait(exchange, ticket);            // from here on it may
//     exchange_stop(exchange);
//
// All ranks submit the same jobs in the same order. A thread works on a few of them at once; sums
// have the same bits as those of comm_reduce_scatter(). What a job reads or writes belongs to the
// thread until the job is done, and so does MPI until all jobs are done: the caller uses nothing of
// train/parallel/comm.h before exchange_wait_all().
//
// MPI makes progress only while it is called, so the thread polls. While the caller computes it
// sleeps between two polls, which takes next to nothing from a core that both share; while the
// caller waits it polls without a pause.
//
// Without `overlaps`, on one rank, and where MPI allows calls from its first thread alone there is
// no thread: a job is done when it is submitted.
#ifndef MHA2MLA_TRAIN_PARALLEL_EXCHANGE_H
#define MHA2MLA_TRAIN_PARALLEL_EXCHANGE_H

#include "train/parallel/comm_shared.h"

typedef struct Exchange Exchange;

// How many buffers exchange_start() wants: the most transfers that are pending at once.
int exchange_n_buffers(int n_ranks, bool overlaps);

// `buffers`, borrowed: exchange_n_buffers() of them, buffer_bytes each, which is a multiple of 64
// and at least comm_reduce_bytes() or comm_gather_bytes() of every job. FAILED: no memory or no
// thread. Not collective.
Status exchange_start(Exchange **out, const Comm *comm, void *buffers, int64_t buffer_bytes,
                      bool overlaps);

// Waits for all jobs, then ends the thread. NULL is allowed.
void exchange_stop(Exchange *exchange);

// Whether jobs are worked on while the caller computes.
bool exchange_overlaps(const Exchange *exchange);

// Submit a job and return its ticket; tickets count up from 0. The job's own buffer is ignored.
int64_t exchange_reduce(Exchange *exchange, const CommReduce *reduce);
int64_t exchange_gather(Exchange *exchange, const CommGather *gather);

// comm_group_gather() of a bucket in a window; adds one to *arrivals when this rank's part is done.
int64_t exchange_gather_shared(Exchange *exchange, const CommGroup *group, const CommGather *gather,
                               CommCounter *arrivals);

// Whether that job and all before it are done; waits until they are.
bool exchange_is_done(Exchange *exchange, int64_t ticket);
void exchange_wait(Exchange *exchange, int64_t ticket);
void exchange_wait_all(Exchange *exchange);

#endif
