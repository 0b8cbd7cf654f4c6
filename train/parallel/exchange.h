// Reduce-scatters and all-gathers of buckets (train/parallel/comm.h) that go on while the caller
// computes.
//
//     Exchange *exchange;
//     TRY(exchange_start(&exchange, &comm, buffers, buffer_bytes, overlaps));
//     ... gradients of a bucket are final ...
//     exchange_reduce(exchange, &reduce);         // returns at once
//     ... more computing, more buckets ...
//     exchange_wait_all(exchange);                // sums are there
//     int64_t ticket = exchange_gather(exchange, bucket, count);
//     ... computing that does not read the bucket ...
//     exchange_wait(exchange, ticket);            // it may
//     exchange_stop(exchange);
//
// All ranks give the same jobs in the same order. A thread does them: a few are under way at once,
// and sums are made as comm_reduce_scatter() makes them, with the same bits. What a job reads or
// writes is the thread's until the job is done, and so is MPI until all jobs are done: before the
// caller says anything over train/parallel/comm.h it calls exchange_wait_all().
//
// The thread asks MPI for what has arrived, which is what makes transfers go on. While the caller
// computes it sleeps in between, so that it takes next to nothing from a core that both share;
// while the caller waits it does not.
//
// Without `overlaps`, on one rank, and where MPI stays with its first thread there is no thread:
// jobs are done in the calls that give them.
#ifndef MHA2MLA_TRAIN_PARALLEL_EXCHANGE_H
#define MHA2MLA_TRAIN_PARALLEL_EXCHANGE_H

#include "train/parallel/comm_shared.h"

typedef struct Exchange Exchange;

// How many buffers exchange_start() wants: the transfers that are under way at most.
int exchange_n_buffers(int n_ranks, bool overlaps);

// `buffers`, borrowed, are exchange_n_buffers() of buffer_bytes each, a multiple of 64: the most
// that comm_reduce_bytes() says of any job. FAILED: no memory or no thread; not collective.
Status exchange_start(Exchange **out, const Comm *comm, void *buffers, int64_t buffer_bytes,
                      bool overlaps);

// Waits for all jobs, then ends the thread. NULL is fine.
void exchange_stop(Exchange *exchange);

// Whether jobs go on by themselves.
bool exchange_overlaps(const Exchange *exchange);

// Each gives a job and returns its ticket; tickets count up from 0. reduce->buffer is ignored.
int64_t exchange_reduce(Exchange *exchange, const CommReduce *reduce);
int64_t exchange_gather(Exchange *exchange, float *bucket, int64_t count);

// The same of a bucket in a window of the group's, to the other groups; then one is added to
// *arrivals.
int64_t exchange_gather_shared(Exchange *exchange, const CommGroup *group, float *bucket,
                               int64_t count, CommCounter *arrivals);

// Whether that job and all before it are done; waits until they are.
bool exchange_is_done(Exchange *exchange, int64_t ticket);
void exchange_wait(Exchange *exchange, int64_t ticket);
void exchange_wait_all(Exchange *exchange);

#endif
