#include "train/weights.h"

#include "model/params.h"

static int64_t flat_bytes(const ModelShape *shape)
{
    const int64_t line = sizeof(CommCounter), bytes = params_count(shape) * (int64_t)sizeof(float);
    return (bytes + line - 1) / line * line;
}

// The model of a rank whose parameters are in the window, or, if that is not open, its own.
static Status create_model(Weights *weights, const ModelShape *shape)
{
    if (weights->window.bytes == NULL)
        return model_create(&weights->model, shape);
    weights->arrivals = (CommCounter *)((char *)weights->window.bytes + flat_bytes(shape));
    return model_create_in(&weights->model, shape, weights->window.bytes);
}

Status weights_create(Weights *out, const Comm *comm, CommGroup *group, const ModelShape *shape)
{
    Weights weights = {.comm = comm, .group = group, .first_ticket = -1};
    const int64_t counters_bytes = partition_most_buckets(shape) * (int64_t)sizeof(CommCounter);
    if (group->shares)
        comm_window_open(&weights.window, comm, group, flat_bytes(shape) + counters_bytes);
    const Status status = comm_agree(comm, create_model(&weights, shape));
    if (status == OK)
        *out = weights;
    else
        weights_release(&weights);
    return status;
}

void weights_release(Weights *weights)
{
    model_release(&weights->model);
    comm_window_close(&weights->window);
    *weights = (Weights){0};
}

bool weights_is_shared(const Weights *weights)
{
    return weights->window.bytes != NULL;
}

bool weights_is_writer(const Weights *weights)
{
    return !weights_is_shared(weights) || weights->group->rank == 0;
}

int64_t weights_elsewhere_bytes(const Weights *weights)
{
    const int64_t bytes = weights->window.size_bytes;
    return weights_is_shared(weights) ? bytes - bytes / weights->group->size : 0;
}

void weights_sync(const Weights *weights)
{
    if (weights_is_shared(weights))
        comm_window_sync(&weights->window, weights->group);
}

void weights_broadcast(const Weights *weights, int64_t first, int64_t count, int from)
{
    float *values = weights->model.params.flat + first;
    const int64_t bytes = count * (int64_t)sizeof *values;
    if (weights_is_shared(weights))
        comm_group_broadcast(weights->group, weights->comm, values, bytes, from);
    else
        comm_broadcast(weights->comm, values, bytes, from);
}

void weights_gather(const Weights *weights, const Partition *partition)
{
    float *flat = weights->model.params.flat;
    if (!weights_is_shared(weights)) {
        partition_gather(partition, weights->comm, flat);
        return;
    }
    for (int i = 0; i < partition->n_buckets; i++)
        comm_group_gather(weights->group, weights->comm, flat + partition->buckets[i].first,
                          partition->buckets[i].count);
    weights_sync(weights);
}

void weights_send(Weights *weights, Exchange *exchange, const Partition *partition, int i)
{
    const Bucket *bucket = &partition->buckets[i];
    float *values = weights->model.params.flat + bucket->first;
    int64_t ticket = -1;
    if (!weights_is_shared(weights))
        ticket = exchange_gather(exchange, values, bucket->count);
    else if (weights->group->n_groups > 1)
        ticket = exchange_gather_shared(exchange, weights->group, values, bucket->count,
                                        &weights->arrivals[i]);
    else
        comm_counter_add(&weights->arrivals[i]);
    if (i == 0) {
        weights->first_ticket = ticket;
        weights->n_updates++;
        weights->n_here = 0;
    }
}

// The own job is asked for first: it is what the others may wait for, too.
static bool is_here(Weights *weights, Exchange *exchange, int i)
{
    return (weights->first_ticket < 0 || exchange_is_done(exchange, weights->first_ticket + i)) &&
           (!weights_is_shared(weights) ||
            comm_counter_has(&weights->arrivals[i], weights->n_updates * weights->group->size));
}

bool weights_are_here(Weights *weights, Exchange *exchange, int n)
{
    if (weights->n_updates == 0)
        return true;
    while (weights->n_here < n && is_here(weights, exchange, weights->n_here))
        weights->n_here++;
    return weights->n_here >= n;
}

void weights_await(Weights *weights, Exchange *exchange, int n)
{
    if (weights->n_updates == 0)
        return;
    if (weights->first_ticket >= 0)
        exchange_wait(exchange, weights->first_ticket + n - 1);
    for (; weights->n_here < n; weights->n_here++)
        if (weights_is_shared(weights))
            comm_counter_await(&weights->arrivals[weights->n_here],
                               weights->n_updates * weights->group->size);
}
