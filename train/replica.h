// The model of a run and how its ranks hold it: each rank with its own parameters, or one copy in
// memory that the ranks of a host share (train/parallel/comm_shared.h). Each rank writes its shares
// of the buckets (train/parallel/partition.h), all ranks read all of them.
//
//     Replica replica;
//     TRY(replica_create(&replica, &comm, &group, &shape));
//     if (replica_is_writer(&replica))
//         ... fill replica.model ...
//     replica_sync(&replica);
//     ... every step: the ranks know of each other that all are done reading ...
//     for (int i = 0; i < partition.n_buckets; i++) {
//         ... update this rank's share of bucket i ...
//         replica_send(&replica, exchange, &partition, i, as_bf16);
//     }
//     ... before bucket n - 1 is read ...
//     replica_wait(&replica, exchange, n);
//     ... before the model is exported or copied ...
//     replica_make_exact(&replica, &partition);
//     ... replica_exact_model(&replica) ...
//     replica_release(&replica);
//
// With a shared copy a bucket has arrived once all ranks of the host have counted themselves in;
// between hosts each share is sent once. Without, every rank receives the shares of all the others.
//
// Shares that are sent as bfloat16 arrive rounded: a copy then holds the shares of its own ranks as
// AdamW left them, in float32, and the matrices of all other shares rounded. Where products round
// the weights they read to bfloat16, and embedding rows are rounded likewise, both give the same
// bits, since rounding twice is rounding once. Everything else that reads the model wants it exact.
//
// Functions are collective unless marked.
#ifndef MHA2MLA_TRAIN_REPLICA_H
#define MHA2MLA_TRAIN_REPLICA_H

#include "model/model.h"
#include "train/parallel/comm_shared.h"
#include "train/parallel/exchange.h"
#include "train/parallel/partition.h"

typedef struct Replica {
    Model model;           // its flat vector lies in the window, if there is one
    const Comm *comm;      // borrowed
    CommGroup *group;      // borrowed
    CommWindow window;     // flat vector, then arrivals
    CommCounter *arrivals; // [buckets] in the window: updated shares, of all ranks and steps
    int64_t n_updates;     // calls of replica_send() for the first bucket so far
    int64_t first_ticket;  // the exchange's ticket of that call; -1: nothing was to be exchanged
    int n_arrived;         // buckets of the newest update that are known to have arrived
    bool is_rounded;       // other copies' shares are as bfloat16 left them; the same on all ranks
} Replica;

// A model of this shape, parameters zero, on all ranks or none. FAILED: no memory. `group` stops
// sharing if a host has too little shared memory. Released by all ranks, also {0}, which does
// nothing.
Status replica_create(Replica *out, const Comm *comm, CommGroup *group, const ModelShape *shape);
void replica_release(Replica *replica);

// Not collective.
bool replica_is_shared(const Replica *replica);

// Whether this rank writes the initial parameters of its copy. Not collective.
bool replica_is_writer(const Replica *replica);

// Bytes of a shared copy that count as the other ranks' memory when the copy is divided evenly
// among the ranks that share it; 0 if none do. Not collective.
int64_t replica_peers_bytes(const Replica *replica);

// What one rank of a copy wrote is visible to all of them. Does nothing if each has its own.
void replica_sync(const Replica *replica);

// Copies what rank `from` has written of [first, first + count) of the flat vector to all copies;
// every rank sees it after replica_sync(). The copies must be exact.
void replica_broadcast(const Replica *replica, int64_t first, int64_t count, int from);

// Sends every rank's shares of all buckets to all ranks, in float32, and waits. No rank may be
// reading the model, and nothing may be on its way.
void replica_gather(Replica *replica, const Partition *partition);

// The same if the copies are rounded.
void replica_make_exact(Replica *replica, const Partition *partition);

// The model, which must be exact. Not collective.
const Model *replica_exact_model(const Replica *replica);

// Begins to send this rank's share of one bucket, its matrices rounded to bfloat16 if as_bf16;
// called for each bucket, from the first to the last.
void replica_send(Replica *replica, Exchange *exchange, const Partition *partition, int bucket,
                  bool as_bf16);

// Whether the first n buckets are as the newest update left them. Not collective.
bool replica_has_arrived(Replica *replica, Exchange *exchange, int n);

// Waits until they are. Not collective.
void replica_wait(Replica *replica, Exchange *exchange, int n);

#endif
