// Gradients to the ranks that own their shares, and updated parameters back. With train.overlap
// both run beside the computation: backward hands over each layer's bucket when it is final
// (send_from_layer), and forward, before each layer, waits only for what that layer needs
// (before_layer). Without it the same exchanges are made in the same order at the end, so the bits
// are equal.
#include "train/reducer.h"

#include "optim/clip.h"

_Static_assert((int)COMM_SHARE_BLOCK == (int)CLIP_BLOCK,
               "a rank's share is cut at the blocks of which squares are summed");

// Waits until the buckets have been sent whose memory forward is about to overwrite: a layer writes
// its own activations and its output, which is the input of the layer above.
static void wait_for_reused_memory(GradientReducer *reducer, int layer)
{
    const GradientReuse *reuse = &reducer->context.memory->ws.reuse;
    if (!gradient_reuse_is_used(reuse) || layer + 1 < reuse->lowest_layer ||
        exchange_is_done(reducer->exchange, reducer->reuse_ticket))
        return;
    const Phase before = phases_enter(reducer->context.phases, PHASE_REDUCE);
    exchange_wait(reducer->exchange, reducer->reuse_ticket);
    phases_enter(reducer->context.phases, before);
}

// Waits until the buckets up to this layer are as the newest update left them.
static void wait_for_parameters(GradientReducer *reducer, int layer)
{
    const Partition *partition = reducer->context.partition;
    int n = 0;
    while (n < partition->n_buckets && partition->buckets[n].layer <= layer)
        n++;
    if (replica_has_arrived(reducer->context.replica, reducer->exchange, n))
        return;
    const Phase before = phases_enter(reducer->context.phases, PHASE_GATHER);
    replica_wait(reducer->context.replica, reducer->exchange, n);
    phases_enter(reducer->context.phases, before);
}

// Called by forward before each layer, -1 for the embedding, n_layers for the head; in most calls
// both have arrived already.
static void before_layer(void *context, int layer)
{
    wait_for_reused_memory(context, layer);
    wait_for_parameters(context, layer);
}

// Without overlap everything is exchanged in the calls, so forward has nothing to wait for.
Status reducer_start(GradientReducer *out, const ReducerContext *context)
{
    TrainerMemory *memory = context->memory;
    *out = (GradientReducer){.context = *context, .reuse_ticket = -1};
    TRY(exchange_start(&out->exchange, context->comm, memory->buffers, memory->buffer_bytes,
                       context->config->overlap));
    if (exchange_overlaps(out->exchange))
        memory->ws.before_layer = (LayerCallback){before_layer, out};
    return OK;
}

void reducer_stop(GradientReducer *reducer)
{
    exchange_stop(reducer->exchange);
    *reducer = (GradientReducer){0};
}

bool reducer_overlaps(const GradientReducer *reducer)
{
    return exchange_overlaps(reducer->exchange);
}

// With one round the sum is made in place, over this rank's own share of the bucket. With several
// the bucket is needed for the next round's gradients.
float *reducer_own_sum(const GradientReducer *reducer, const Bucket *bucket)
{
    const TrainerMemory *memory = reducer->context.memory;
    return memory->own_sums != NULL
               ? memory->own_sums + bucket->moments_first
               : memory->flat_grads + bucket->grads_first + (bucket->own_first - bucket->first);
}

// Only after the round before is finished: its buckets are overwritten from here on.
void reducer_begin_round(GradientReducer *reducer, int round)
{
    reducer->round = round;
    reducer->n_unsent = reducer->context.partition->n_buckets;
}

static void send_bucket(GradientReducer *reducer, const Bucket *bucket)
{
    const ReducerContext *context = &reducer->context;
    const TrainerMemory *memory = context->memory;
    const CommReduce reduce = {.sum = reducer_own_sum(reducer, bucket),
                               .bucket = memory->flat_grads + bucket->grads_first,
                               .count = bucket->count,
                               .n_senders =
                                   batch_schedule_senders(context->schedule, reducer->round),
                               .fresh = reducer->round == 0,
                               .as_bf16 = context->config->reduce_dtype == REDUCE_BFLOAT16};
    const int64_t ticket = exchange_reduce(reducer->exchange, &reduce);
    // Buckets go from the end of the vector to its beginning, and a ticket stands for all exchanges
    // before it, so the last bucket that reaches into reused memory is the one to wait for.
    if (bucket->grads_first + bucket->count > memory->ws.reuse.taken_from)
        reducer->reuse_ticket = ticket;
}

// Sends the buckets from this layer up that have not been sent, the last one first: the order in
// which backward makes them final, and the same on every rank.
static void send_from_layer(void *context, int layer)
{
    GradientReducer *reducer = context;
    const Bucket *buckets = reducer->context.partition->buckets;
    while (reducer->n_unsent > 0 && buckets[reducer->n_unsent - 1].layer >= layer)
        send_bucket(reducer, &buckets[--reducer->n_unsent]);
}

// For the last micro-batch of a group: the earlier ones do not make gradients final.
LayerCallback reducer_callback(GradientReducer *reducer)
{
    return reducer_overlaps(reducer) ? (LayerCallback){send_from_layer, reducer}
                                     : (LayerCallback){0};
}

// Sends what the callback has not: the embedding's bucket, all buckets without overlap, and, on a
// rank without a group in this round, all of them as well, since every rank submits the same jobs.
// Such a rank only receives.
void reducer_end_round(GradientReducer *reducer)
{
    phases_enter(reducer->context.phases, PHASE_REDUCE);
    send_from_layer(reducer, -1);
}

// The exchange thread has MPI until all is done; only then can the ranks agree.
Status reducer_finish_round(GradientReducer *reducer, Status own)
{
    phases_enter(reducer->context.phases, PHASE_REDUCE);
    exchange_wait_all(reducer->exchange);
    return comm_agree(reducer->context.comm, own);
}

// Shares begin at multiples of CLIP_BLOCK in their bucket (see the assertion above), so that the
// blocks of one rank are the same whatever the number of ranks.
void reducer_sum_squares(const GradientReducer *reducer, double *squares)
{
    const Partition *partition = reducer->context.partition;
    int64_t first_block = 0;
    for (int i = 0; i < partition->n_buckets; i++) {
        const Bucket *bucket = &partition->buckets[i];
        const int64_t own_block = first_block + (bucket->own_first - bucket->first) / CLIP_BLOCK;
        clip_sum_squares(squares + own_block, reducer_own_sum(reducer, bucket), bucket->own_count);
        first_block += clip_n_blocks(bucket->count);
    }
}

// Without overlap the collective calls come after the last update: between updates each of them
// would make all ranks wait for the slowest. Forward does not wait then, so that is done here.
void reducer_send_parameters(GradientReducer *reducer, int bucket)
{
    const ReducerContext *context = &reducer->context;
    const int n = context->partition->n_buckets;
    if (reducer_overlaps(reducer)) {
        replica_send(context->replica, reducer->exchange, context->partition, bucket,
                     context->sends_bf16);
    } else if (bucket == n - 1) {
        const Phase before = phases_enter(context->phases, PHASE_GATHER);
        for (int i = 0; i < n; i++)
            replica_send(context->replica, reducer->exchange, context->partition, i,
                         context->sends_bf16);
        replica_wait(context->replica, reducer->exchange, n);
        phases_enter(context->phases, before);
    }
}

// Afterwards MPI is free for the loop's own collectives, and all parameters are those of the newest
// update.
void reducer_wait_all(GradientReducer *reducer)
{
    const ReducerContext *context = &reducer->context;
    const Phase before = phases_enter(context->phases, PHASE_GATHER);
    exchange_wait_all(reducer->exchange);
    replica_wait(context->replica, reducer->exchange, context->partition->n_buckets);
    phases_enter(context->phases, before);
}
