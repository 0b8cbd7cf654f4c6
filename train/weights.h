// The model of a run and how its ranks hold it: each with its own parameters, or one copy in memory
// that the ranks of a host share (train/comm_shared.h). Each rank writes its shares of the buckets
// (train/partition.h), all ranks read all of them.
//
//     Weights weights;
//     TRY(weights_create(&weights, &comm, &group, &shape));
//     if (weights_is_writer(&weights))
//         ... fill weights.model ...
//     weights_sync(&weights);
//     ... every step: all ranks are done reading, and know it of each other ...
//     for (int i = 0; i < partition.n_buckets; i++) {
//         ... update the rank's own share of bucket i ...
//         weights_send(&weights, exchange, &partition, i);
//     }
//     ... before bucket n - 1 is read ...
//     weights_await(&weights, exchange, n);
//     weights_release(&weights);
//
// With one copy a bucket is there once all ranks of the host have counted themselves in; between
// hosts each share goes once. Without, every rank gets the shares of all the others.
//
// Collective but where marked.
#ifndef MHA2MLA_TRAIN_WEIGHTS_H
#define MHA2MLA_TRAIN_WEIGHTS_H

#include "model/model.h"
#include "train/comm_shared.h"
#include "train/exchange.h"
#include "train/partition.h"

typedef struct Weights {
    Model model;           // its flat vector lies in the window, if that is open
    const Comm *comm;      // borrowed
    CommGroup *group;      // borrowed
    CommWindow window;     // flat vector, then arrivals
    CommCounter *arrivals; // [buckets] in it: updates, of any rank's share
    int64_t n_updates;     // weights_send() of the first bucket so far
    int64_t first_ticket;  // the exchange's of the newest one; -1: none was needed
    int n_here;            // buckets of that update which are known to be here
} Weights;

// A model of this shape, parameters zero, on all ranks or none. FAILED: no memory. `group` stops
// sharing if there is no room for it. Released by all ranks, also {0}, which does nothing.
Status weights_create(Weights *out, const Comm *comm, CommGroup *group, const ModelShape *shape);
void weights_release(Weights *weights);

// Not collective.
bool weights_is_shared(const Weights *weights);

// Whether this rank is to write what all copies begin with. Not collective.
bool weights_is_writer(const Weights *weights);

// Of the parameters' bytes, what counts as other ranks' where each rank of a copy counts as much.
// Not collective.
int64_t weights_elsewhere_bytes(const Weights *weights);

// What the ranks of a copy wrote is there for all of them. Nothing to do if each has its own.
void weights_sync(const Weights *weights);

// What rank `from` has written of [first, first + count) of the flat vector, on all ranks after
// weights_sync().
void weights_broadcast(const Weights *weights, int64_t first, int64_t count, int from);

// Every rank's own shares to all, before it returns.
void weights_gather(const Weights *weights, const Partition *partition);

// The same of one bucket, as a job of the exchange; bucket after bucket from the first to the last.
void weights_send(Weights *weights, Exchange *exchange, const Partition *partition, int bucket);

// Whether the first n buckets are here as the newest update left them; waits until they are. Not
// collective.
bool weights_are_here(Weights *weights, Exchange *exchange, int n);
void weights_await(Weights *weights, Exchange *exchange, int n);

#endif
