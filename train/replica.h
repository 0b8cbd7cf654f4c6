// The model of a run and how its ranks hold it: each with its own parameters, or one copy in memory
// that the ranks of a host share (train/parallel/comm_shared.h). Each rank writes its shares of the
// buckets (train/parallel/partition.h), all ranks read all of them.
//
//     Replica weights;
//     TRY(replica_create(&replica, &comm, &group, &shape));
//     if (replica_is_writer(&replica))
//         ... fill weights.model ...
//     replica_sync(&replica);
//     ... every step: all ranks are done reading, and know it of each other ...
//     for (int i = 0; i < partition.n_buckets; i++) {
//         ... update the rank's own share of bucket i ...
//         replica_send(&replica, exchange, &partition, i);
//     }
//     ... before bucket n - 1 is read ...
//     replica_await(&replica, exchange, n);
//     replica_release(&replica);
//
// With one copy a bucket is there once all ranks of the host have counted themselves in; between
// hosts each share goes once. Without, every rank gets the shares of all the others.
//
// Collective but where marked.
#ifndef MHA2MLA_TRAIN_REPLICA_H
#define MHA2MLA_TRAIN_REPLICA_H

#include "model/model.h"
#include "train/parallel/comm_shared.h"
#include "train/parallel/exchange.h"
#include "train/parallel/partition.h"

typedef struct Replica {
    Model model;           // its flat vector lies in the window, if that is open
    const Comm *comm;      // borrowed
    CommGroup *group;      // borrowed
    CommWindow window;     // flat vector, then arrivals
    CommCounter *arrivals; // [buckets] in it: updates, of any rank's share
    int64_t n_updates;     // replica_send() of the first bucket so far
    int64_t first_ticket;  // the exchange's of the newest one; -1: none was needed
    int n_here;            // buckets of that update which are known to be here
} Replica;

// A model of this shape, parameters zero, on all ranks or none. FAILED: no memory. `group` stops
// sharing if there is no room for it. Released by all ranks, also {0}, which does nothing.
Status replica_create(Replica *out, const Comm *comm, CommGroup *group, const ModelShape *shape);
void replica_release(Replica *replica);

// Not collective.
bool replica_is_shared(const Replica *replica);

// Whether this rank is to write what all copies begin with. Not collective.
bool replica_is_writer(const Replica *replica);

// Of the parameters' bytes, what counts as other ranks' where each rank of a copy counts as much.
// Not collective.
int64_t replica_elsewhere_bytes(const Replica *replica);

// What the ranks of a copy wrote is there for all of them. Nothing to do if each has its own.
void replica_sync(const Replica *replica);

// What rank `from` has written of [first, first + count) of the flat vector, on all ranks after
// replica_sync().
void replica_broadcast(const Replica *replica, int64_t first, int64_t count, int from);

// Every rank's own shares to all, before it returns.
void replica_gather(const Replica *replica, const Partition *partition);

// The same of one bucket, as a job of the exchange; bucket after bucket from the first to the last.
void replica_send(Replica *replica, Exchange *exchange, const Partition *partition, int bucket);

// Whether the first n buckets are here as the newest update left them; waits until they are. Not
// collective.
bool replica_are_here(Replica *replica, Exchange *exchange, int n);
void replica_await(Replica *replica, Exchange *exchange, int n);

#endif
