// One copy of the parameters for each group of ranks, in a shared window, or one for each rank. In
// a window every rank updates its own share in place; the shares of other groups arrive by MPI.
// What a rank has to know before it reads a bucket is that all ranks of its group have stored their
// part: for that each bucket has a counter, which never falls, so that after update u it stands at
// u times the ranks of the group.
#include "train/replica.h"

#include "model/params.h"

// Counters begin on a cache line of their own: ranks poll them while others write parameters.
static int64_t flat_bytes(const ModelShape *shape)
{
    const int64_t line = sizeof(CommCounter), bytes = params_count(shape) * (int64_t)sizeof(float);
    return (bytes + line - 1) / line * line;
}

// The parameters lie in the window, or, if there is none, in memory of this rank.
static Status create_model(Replica *replica, const ModelShape *shape)
{
    if (replica->window.bytes == NULL)
        return model_create(&replica->model, shape);
    replica->arrivals = (CommCounter *)((char *)replica->window.bytes + flat_bytes(shape));
    return model_create_in(&replica->model, shape, replica->window.bytes);
}

// Too little shared memory on a host is no error: group->shares is then false on all ranks, and
// each allocates its own copy.
Status replica_create(Replica *out, const Comm *comm, CommGroup *group, const ModelShape *shape)
{
    Replica replica = {.comm = comm, .group = group, .first_ticket = -1};
    const int64_t counters_bytes = partition_max_buckets(shape) * (int64_t)sizeof(CommCounter);
    if (group->shares)
        comm_window_open(&replica.window, comm, group, flat_bytes(shape) + counters_bytes);
    const Status status = comm_agree(comm, create_model(&replica, shape));
    if (status == OK)
        *out = replica;
    else
        replica_release(&replica);
    return status;
}

void replica_release(Replica *replica)
{
    model_release(&replica->model);
    comm_window_close(&replica->window);
    *replica = (Replica){0};
}

bool replica_is_shared(const Replica *replica)
{
    return replica->window.bytes != NULL;
}

// One of the ranks that share a copy fills it at the beginning.
bool replica_is_writer(const Replica *replica)
{
    return !replica_is_shared(replica) || replica->group->rank == 0;
}

// What the kernel counts in this rank's resident memory although other ranks answer for it.
int64_t replica_peers_bytes(const Replica *replica)
{
    const int64_t bytes = replica->window.size_bytes;
    return replica_is_shared(replica) ? bytes - bytes / replica->group->size : 0;
}

void replica_sync(const Replica *replica)
{
    if (replica_is_shared(replica))
        comm_window_sync(&replica->window, replica->group);
}

void replica_broadcast(const Replica *replica, int64_t first, int64_t count, int from)
{
    float *values = replica->model.params.flat + first;
    const int64_t bytes = count * (int64_t)sizeof *values;
    replica_exact_model(replica);
    if (replica_is_shared(replica))
        comm_group_broadcast(replica->group, replica->comm, values, bytes, from);
    else
        comm_broadcast(replica->comm, values, bytes, from);
}

// Of a shared copy only the groups exchange: each rank sends its share to the ranks of its number
// in the other groups. A rank of this copy that is late may still read what they write: hence the
// first sync.
void replica_gather(Replica *replica, const Partition *partition)
{
    float *flat = replica->model.params.flat;
    replica->is_rounded = false;
    if (!replica_is_shared(replica)) {
        partition_gather(partition, replica->comm, flat);
        return;
    }
    replica_sync(replica);
    for (int i = 0; i < partition->n_buckets; i++) {
        const Bucket *bucket = &partition->buckets[i];
        const CommGather gather = partition_bucket_gather(bucket, flat + bucket->first, false);
        comm_group_gather(replica->group, replica->comm, &gather);
    }
    replica_sync(replica);
}

void replica_make_exact(Replica *replica, const Partition *partition)
{
    if (replica->is_rounded)
        replica_gather(replica, partition);
}

const Model *replica_exact_model(const Replica *replica)
{
    CHECK(!replica->is_rounded, "the parameters of other ranks are rounded to bfloat16");
    return &replica->model;
}

// Copies of the parameters in the job.
static int n_copies(const Replica *replica)
{
    return replica_is_shared(replica) ? replica->group->n_groups : replica->comm->size;
}

// Three ways to the other ranks: every rank receives all shares, or the groups exchange and each
// rank then counts itself in, or, with a single group, the share is in place already and only
// counted.
void replica_send(Replica *replica, Exchange *exchange, const Partition *partition, int i,
                  bool as_bf16)
{
    const Bucket *bucket = &partition->buckets[i];
    float *values = replica->model.params.flat + bucket->first;
    const CommGather gather = partition_bucket_gather(bucket, values, as_bf16);
    int64_t ticket = -1;
    if (!replica_is_shared(replica))
        ticket = exchange_gather(exchange, &gather);
    else if (n_copies(replica) > 1)
        ticket = exchange_gather_shared(exchange, replica->group, &gather, &replica->arrivals[i]);
    else
        comm_counter_add(&replica->arrivals[i]);
    if (i == 0) {
        replica->first_ticket = ticket;
        replica->n_updates++;
        replica->n_arrived = 0;
        replica->is_rounded = as_bf16 && n_copies(replica) > 1;
    }
}

// Buckets are sent one after another, so that of bucket i has ticket first_ticket + i. In a shared
// copy the ranks' own exchanges come in at different times: the counter says when all have.
static bool bucket_has_arrived(Replica *replica, Exchange *exchange, int i)
{
    return (replica->first_ticket < 0 || exchange_is_done(exchange, replica->first_ticket + i)) &&
           (!replica_is_shared(replica) ||
            comm_counter_has(&replica->arrivals[i], replica->n_updates * replica->group->size));
}

// Remembers how far the buckets have arrived, so that each is asked about once per update.
bool replica_has_arrived(Replica *replica, Exchange *exchange, int n)
{
    if (replica->n_updates == 0)
        return true;
    while (replica->n_arrived < n && bucket_has_arrived(replica, exchange, replica->n_arrived))
        replica->n_arrived++;
    return replica->n_arrived >= n;
}

void replica_wait(Replica *replica, Exchange *exchange, int n)
{
    if (replica->n_updates == 0)
        return;
    // First this rank's own exchange: the wait makes its thread poll without pause, and the other
    // ranks of the copy may be waiting for this rank to count itself in.
    if (replica->first_ticket >= 0)
        exchange_wait(exchange, replica->first_ticket + n - 1);
    for (; replica->n_arrived < n; replica->n_arrived++)
        if (replica_is_shared(replica))
            comm_counter_await(&replica->arrivals[replica->n_arrived],
                               replica->n_updates * replica->group->size);
}
