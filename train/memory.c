// Where everything lies that a rank needs for training. The same placing code runs twice
// (base/arena.h): first without memory, which measures the arenas, then in them; `plan` runs only
// the first half. One arena for each kind of memory, so that the plan can list them.
#include "train/memory.h"

#include <omp.h>

// The bytes that exchanging the largest bucket takes, its gradients or its parameters as bfloat16;
// a multiple of a cache line, as buffers follow one another.
static int64_t max_buffer_bytes(const Partition *partition, const BatchSchedule *schedule,
                                bool as_bf16)
{
    int64_t max_bytes = 0;
    for (int i = 0; i < partition->n_buckets; i++) {
        const Bucket *bucket = &partition->buckets[i];
        const CommGather gather = partition_bucket_gather(bucket, NULL, schedule->n_ranks > 1);
        const int64_t reduced = comm_reduce_bytes(bucket->count, schedule->n_ranks,
                                                  batch_schedule_senders(schedule, 0), as_bf16);
        const int64_t gathered = comm_gather_bytes(&gather);
        const int64_t n = reduced > gathered ? reduced : gathered;
        max_bytes = n > max_bytes ? n : max_bytes;
    }
    return (max_bytes + 63) / 64 * 64;
}

// Which part of the gradients' memory activations may reuse (model/transformer/gradient_reuse.h).
// After the backward of a group its gradients are still read
// - by the next micro-batch of the group, which adds to them: with more than one micro-batch in a
//   group no memory is reused;
// - by the exchange, which sends those of a round while the next round's forward has begun. The
//   reducer makes forward wait before the first layer that reuses memory, so, to let most of the
//   forward overlap, no layer of the lower half does. Sums over rounds lie apart;
// - by the norm and AdamW, in a step of one round, whose sums lie in place. Both end before the
//   next forward, be it of training, validation or the trace of non-finite numbers.
// Checkpoints hold no gradients.
static GradientReuse find_gradient_reuse(float *flat, const ModelShape *shape,
                                         const BatchSchedule *schedule, const Config *config)
{
    const TrainConfig *train = &config->train;
    const Trainable trained = config_trained(config);
    const bool is_sent_later = schedule->n_ranks > 1 && schedule->n_rounds > 1 && train->overlap;
    if (schedule->n_groups < schedule->n_micro_batches)
        return (GradientReuse){0};
    return gradient_reuse_start(flat, shape, &trained,
                                is_sent_later ? (shape->n_layers + 1) / 2 : 0);
}

void memory_place(TrainerMemory *memory, const ModelShape *shape, const ModelShape *teacher,
                  const Partition *partition, const BatchSchedule *schedule, const Config *config,
                  int n_threads)
{
    const int B = config->train.micro_batch, T = config->data.seq_len;
    const Trainable trained = config_trained(config);
    memory->flat_grads = arena_floats(&memory->gradients, trainable_gradients(&trained, shape));
    memory->own_sums = NULL;
    if (schedule->n_rounds > 1)
        memory->own_sums = arena_floats(&memory->gradients, partition->own_count);
    memory->m = arena_floats(&memory->moments, partition->own_count);
    memory->v = arena_floats(&memory->moments, partition->own_count);
    const GradientReuse reuse = find_gradient_reuse(memory->flat_grads, shape, schedule, config);
    workspace_place_reusing(&memory->ws, &reuse, &memory->activations, &memory->scratch, shape, B,
                            T, n_threads, config->train.recompute, config->train.compute);
    if (teacher != NULL)
        teacher_place(&memory->teaching, &memory->teacher, &memory->teacher_scratch, teacher,
                      config, n_threads);
    batch_place(&memory->batch, &memory->scratch, B, T);
    prefetch_place(&memory->ahead, &memory->scratch, B, T);
    memory->buffer_bytes =
        max_buffer_bytes(partition, schedule, config->train.reduce_dtype == REDUCE_BFLOAT16);
    memory->buffers = arena_place(&memory->communication,
                                  exchange_n_buffers(schedule->n_ranks, config->train.overlap),
                                  (size_t)memory->buffer_bytes);
    step_sums_place(&memory->sums, &memory->communication, partition, schedule);
}

// What was allocated before an error is released by memory_release().
Status memory_allocate(TrainerMemory *memory, const ModelShape *shape, const ModelShape *teacher,
                       const Partition *partition, const BatchSchedule *schedule,
                       const Config *config)
{
    int n_threads = omp_get_max_threads();
    *memory = (TrainerMemory){
        .gradients = arena_start("gradients"),
        .moments = arena_start("moments"),
        .activations = arena_start("activations"),
        .scratch = arena_start("scratch"),
        .communication = arena_start("communication"),
        .teacher = arena_start("teacher"),
        .teacher_scratch = arena_start("teacher's scratch"),
    };
    memory_place(memory, shape, teacher, partition, schedule, config, n_threads);
    TRY(arena_allocate(&memory->gradients));
    TRY(arena_allocate(&memory->moments));
    TRY(arena_allocate(&memory->activations));
    TRY(arena_allocate(&memory->scratch));
    TRY(arena_allocate(&memory->communication));
    TRY(arena_allocate(&memory->teacher));
    TRY(arena_allocate(&memory->teacher_scratch));
    memory_place(memory, shape, teacher, partition, schedule, config, n_threads);
    return OK;
}

void memory_release(TrainerMemory *memory)
{
    arena_release(&memory->gradients);
    arena_release(&memory->moments);
    arena_release(&memory->activations);
    arena_release(&memory->scratch);
    arena_release(&memory->communication);
    arena_release(&memory->teacher);
    arena_release(&memory->teacher_scratch);
}
