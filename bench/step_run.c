// Sections of a step lie between meetings of the ranks, so that a row is what it is called: the
// wait for a slower rank is not the exchange. Between the passes a product is timed, on all ranks
// at once.
#include "bench/step_run.h"

#include "base/log.h"
#include "base/random.h"
#include "bench/timing.h"
#include "model/kernels/gemm.h"
#include "model/kernels/half.h"
#include "model/kernels/head.h"
#include "model/transformer/transformer.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "train/parallel/partition.h"
#include "train/plan/blas.h"
#include "train/plan/plan.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

enum {
    PRODUCTS_PER_ROUND = 2,
    SQUARE_FLOATS = STEP_SGEMM_SIZE * STEP_SGEMM_SIZE,
    SGEMM_FLOATS = 3 * SQUARE_FLOATS
};

typedef struct Bench {
    const Comm *comm;      // borrowed
    StepSetting *setting;  // borrowed
    double (*clock)(void); // seconds
    double mark_s;         // of the clock, where the lap began
    StepTimes times;
    Model model;
    Partition partition;
    Arena arena; // owns what follows
    Workspace ws;
    Params grads;
    float *flat_grads; // [params_count]
    float *m, *v;      // [partition.own_count]
    void *buffer;      // [max_buffer_bytes()]
    double *squares;   // [partition_n_blocks()]
    int32_t *inputs, *targets;
    float *matrices; // [SGEMM_FLOATS] of sgemm; where logits are, if these take as much
} Bench;

// ------------------------------------------------------------------------------------ memory

// The all-gather of a bucket's updated parameters: as bfloat16 where products take them so, as in
// training.
static CommGather bucket_gather(const Bench *bench, const Bucket *bucket)
{
    float *values =
        bench->model.params.flat != NULL ? bench->model.params.flat + bucket->first : NULL;
    CommGather gather = partition_bucket_gather(
        bucket, values, bench->setting->compute == COMPUTE_BFLOAT16 && bench->comm->size > 1);
    gather.buffer = bench->buffer;
    return gather;
}

// Bytes that the exchange of the largest bucket takes.
static int64_t max_buffer_bytes(const Bench *bench)
{
    int64_t max_bytes = 0;
    for (int i = 0; i < bench->partition.n_buckets; i++) {
        const Bucket *bucket = &bench->partition.buckets[i];
        const CommGather gather = bucket_gather(bench, bucket);
        const int64_t reduced =
            comm_reduce_bytes(bucket->count, bench->comm->size, bench->comm->size, false);
        const int64_t gathered = comm_gather_bytes(&gather);
        const int64_t n = reduced > gathered ? reduced : gathered;
        max_bytes = n > max_bytes ? n : max_bytes;
    }
    return max_bytes;
}

// As train/memory.c places a step of one micro-batch: gradients and activations share memory where
// training lets them.
static void place(Bench *bench)
{
    const ModelShape *shape = &bench->setting->shape;
    const int T = bench->setting->T;
    Arena *arena = &bench->arena;
    bench->flat_grads = arena_floats(arena, params_count(shape));
    const GradientReuse reuse = gradient_reuse_start(bench->flat_grads, shape, &(Trainable){0},
                                                     0); // as train/memory.c has it
    workspace_place_reusing(&bench->ws, &reuse, arena, arena, shape, 1, T, omp_get_max_threads(),
                            RECOMPUTE_NONE, bench->setting->compute);
    bench->m = arena_floats(arena, bench->partition.own_count);
    bench->v = arena_floats(arena, bench->partition.own_count);
    bench->buffer = arena_place(arena, max_buffer_bytes(bench), 1);
    bench->squares = arena_place(arena, partition_n_blocks(&bench->partition), sizeof(double));
    bench->inputs = arena_place(arena, T, sizeof(int32_t));
    bench->targets = arena_place(arena, T, sizeof(int32_t));
    const int64_t of_head = head_scratch_bytes(bench->setting->compute, T, shape->vocab_size, true);
    bench->matrices = of_head < SGEMM_FLOATS * (int64_t)sizeof(float)
                          ? arena_floats(arena, SGEMM_FLOATS)
                          : bench->ws.head_scratch;
}

// What the kernel estimates to be available without swapping (proc(5), MemAvailable); 0: unknown.
static double available_bytes(void)
{
    char line[128];
    long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL)
        return 0;
    while (kib == 0 && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "MemAvailable: %lld kB", &kib) != 1)
            kib = 0;
    fclose(file);
    return (double)kib * 1024;
}

// All ranks are on this machine. Before anything is allocated: a machine that is out of memory may
// kill another program than this one.
static Status check_memory(const Bench *bench)
{
    const StepSetting *setting = bench->setting;
    double bytes = (double)(model_bytes(&setting->shape) + bench->arena.peak_bytes);
    comm_sum_doubles(bench->comm, &bytes, 1);
    double available = available_bytes();
    comm_broadcast(bench->comm, &available, sizeof available, 0);
    if (available > 0 && bytes > available)
        return fail(FAILED,
                    "%s, T %d needs %.1f GiB on %d rank%s, %.1f GiB are available; take fewer "
                    "ranks or tokens",
                    setting->shape_name, setting->T, bytes / (1 << 30), setting->n_ranks,
                    setting->n_ranks == 1 ? "" : "s", available / (1 << 30));
    return OK;
}

// Uniform with a standard deviation of 0.02: normal deviates, as in training, take longer than a
// step.
static void init_params(Model *model)
{
    const float widest = 0.02f * sqrtf(3.0f);
    const int n_tensors = params_n_tensors(&model->shape);
    for (int i = 0; i < n_tensors; i++) {
        const ParamInfo info = params_info(&model->shape, i);
        const int64_t count = (int64_t)info.rows * info.cols;
        float *values = model->params.flat + info.offset;
#pragma omp parallel for schedule(static)
        for (int64_t k = 0; k < count; k++) {
            const uint64_t bits = random_bits(0, (uint64_t)(info.offset + k)) >> 40;
            values[k] = info.is_vector ? 1.0f : widest * ((float)bits * 0x1p-23f - 1.0f);
        }
    }
}

// Pages appear when first written, near the thread that writes, which is not what a step costs
// after the first one.
static void touch(Arena *arena)
{
    enum { PIECE_BYTES = 1 << 20 };
    const int64_t size_bytes = arena->size_bytes - ARENA_RED_ZONE_BYTES;
    char *all = arena_place(arena, size_bytes, 1);
    arena_rewind(arena, 0);
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < size_bytes; first += PIECE_BYTES) {
        const int64_t left = size_bytes - first;
        memset(all + first, 0, (size_t)(left < PIECE_BYTES ? left : PIECE_BYTES));
    }
}

// Not collective: each rank allocates for itself and makes inputs of its own.
static Status allocate(Bench *bench)
{
    const ModelShape *shape = &bench->setting->shape;
    const int T = bench->setting->T;
    TRY(model_create(&bench->model, shape));
    init_params(&bench->model);
    TRY(arena_allocate(&bench->arena));
    touch(&bench->arena);
    place(bench);
    TRY(params_place(&bench->grads, shape, bench->flat_grads));
    transformer_start(&bench->ws, &bench->model);
    bench->ws.fresh_gradients = true; // a micro-batch per step and rank
    const uint64_t V = (uint64_t)shape->vocab_size, rank = (uint64_t)bench->comm->rank;
    for (int t = 0; t < T; t++) {
        bench->inputs[t] = (int32_t)(random_bits(2 * rank + 1, (uint64_t)t) % V);
        bench->targets[t] = (int32_t)(random_bits(2 * rank + 2, (uint64_t)t) % V);
    }
    return OK;
}

// ------------------------------------------------------------------------------------ exchange

// Each rank's sum of its shares of the gradients, in place.
static void reduce_scatter(Bench *bench)
{
    for (int i = 0; i < bench->partition.n_buckets; i++) {
        const Bucket *bucket = &bench->partition.buckets[i];
        const CommReduce reduce = {.sum = bench->flat_grads + bucket->own_first,
                                   .bucket = bench->flat_grads + bucket->first,
                                   .count = bucket->count,
                                   .n_senders = bench->comm->size,
                                   .fresh = true,
                                   .buffer = bench->buffer};
        comm_reduce_scatter(bench->comm, &reduce);
    }
}

// All updated shares to all ranks, at the end of the step.
static void gather(Bench *bench)
{
    for (int i = 0; i < bench->partition.n_buckets; i++) {
        const CommGather gathered = bucket_gather(bench, &bench->partition.buckets[i]);
        comm_all_gather(bench->comm, &gathered);
    }
}

// ------------------------------------------------------------------------------------ the step

static double cpu_s(void)
{
    return timing_seconds(CLOCK_PROCESS_CPUTIME_ID);
}

// Seconds since the last call.
static double lap(Bench *bench)
{
    const double now_s = bench->clock(), lap_s = now_s - bench->mark_s;
    bench->mark_s = now_s;
    return lap_s;
}

// An agreement as a barrier; returns the seconds that this rank waited.
static double wait_for_ranks(Bench *bench)
{
    comm_all(bench->comm, true);
    return lap(bench);
}

// On all ranks at once: what a core or a cache gives alone is not what it gives a step.
static double time_sgemm(Bench *bench)
{
    const int n = STEP_SGEMM_SIZE;
    float *a = bench->matrices, *b = a + SQUARE_FLOATS, *c = b + SQUARE_FLOATS;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < SQUARE_FLOATS; i++)
        a[i] = b[i] = (float)(i % 7) - 3.0f;
    wait_for_ranks(bench);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1.0f, a, n, b, n, 0.0f, c, n);
    const double sgemm_s = lap(bench);
    wait_for_ranks(bench);
    return sgemm_s;
}

// The same by the program's own product of bfloat16 operands.
static double time_bf16(Bench *bench)
{
    const int n = STEP_SGEMM_SIZE;
    uint16_t *a = (uint16_t *)bench->matrices, *b = a + SQUARE_FLOATS;
    float *c = bench->matrices + SQUARE_FLOATS;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < SQUARE_FLOATS; i++)
        a[i] = b[i] = half_f32_to_bf16((float)(i % 7) - 3.0f);
    wait_for_ranks(bench);
    gemm(COMPUTE_BFLOAT16, rows_f32(c, n), gemm_rows(rows_bf16(a, n)),
         gemm_rows_transposed(rows_bf16(b, n)), n, n, n, false);
    const double bf16_s = lap(bench);
    wait_for_ranks(bench);
    return bf16_s;
}

// Both machine's rates, of which the second counts where the step's products are in bfloat16.
static void time_products(Bench *bench, StepRound *round)
{
    round->sgemm_s += time_sgemm(bench) / PRODUCTS_PER_ROUND;
    if (bench->setting->compute == COMPUTE_BFLOAT16)
        round->bf16_s += time_bf16(bench) / PRODUCTS_PER_ROUND;
}

// The loss without gradients comes first, beside the step: the timing of its parts is switched off
// for it.
static void pass_forward(Bench *bench, StepRound *round)
{
    transformer_forward(&bench->ws, &bench->model, bench->inputs, NULL);
    round->passes_s = lap(bench);
    round->waits_s = wait_for_ranks(bench);
    bench->ws.times = NULL;
    transformer_loss(&bench->ws, &bench->model, bench->targets, 1.0f, NULL);
    round->forward_s = round->passes_s + lap(bench);
    bench->ws.times = &bench->times;
}

static void pass_loss(Bench *bench, StepRound *round)
{
    const float n_targets = (float)bench->setting->T * (float)bench->setting->n_ranks;
    transformer_loss(&bench->ws, &bench->model, bench->targets, 1.0f / n_targets, &bench->grads);
    round->passes_s += lap(bench);
    round->waits_s += wait_for_ranks(bench);
}

static void pass_backward_and_reduce(Bench *bench, StepRound *round)
{
    transformer_backward(&bench->ws, &bench->model, bench->inputs, &bench->grads);
    round->passes_s += lap(bench);
    round->waits_s += wait_for_ranks(bench);
    reduce_scatter(bench);
    round->stages_s[STAGE_REDUCE] = lap(bench);
    round->waits_s += wait_for_ranks(bench);
}

// The factor for clipping, from the squares of all ranks' shares.
static double measure_scale(Bench *bench)
{
    const int64_t n_blocks = partition_n_blocks(&bench->partition);
    int64_t first_block = 0;
    memset(bench->squares, 0, (size_t)n_blocks * sizeof(double));
    for (int i = 0; i < bench->partition.n_buckets; i++) {
        const Bucket *bucket = &bench->partition.buckets[i];
        clip_sum_squares(bench->squares + first_block +
                             (bucket->own_first - bucket->first) / CLIP_BLOCK,
                         bench->flat_grads + bucket->own_first, bucket->own_count);
        first_block += clip_n_blocks(bucket->count);
    }
    comm_sum_doubles(bench->comm, bench->squares, n_blocks);
    double sum = 0;
    for (int64_t i = 0; i < n_blocks; i++)
        sum += bench->squares[i];
    CHECK(isfinite(sum) && sum > 0, "the gradient's norm is the root of %g", sum);
    return clip_scale(sqrt(sum), 1.0);
}

// As in train/step.c: norm, AdamW on the own shares, then all shares to all ranks.
static void update(Bench *bench, StepRound *round, int step)
{
    const AdamW rule = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
    const double scale = measure_scale(bench);
    round->stages_s[STAGE_CLIP] = lap(bench);
    for (int i = 0; i < bench->partition.n_buckets; i++) {
        const Bucket *bucket = &bench->partition.buckets[i];
        adamw_update(bench->model.params.flat + bucket->own_first, bench->m + bucket->moments_first,
                     bench->v + bucket->moments_first, bench->flat_grads + bucket->own_first,
                     bucket->own_count, &rule, 1e-4, scale, step);
    }
    round->stages_s[STAGE_ADAMW] = lap(bench);
    gather(bench);
    round->stages_s[STAGE_GATHER] = lap(bench);
    round->waits_s += wait_for_ranks(bench);
}

// Square products are measured before and after the loss. An interruption there changes nothing,
// while one between a pass and its exchange would hide waiting; and the memory of the logits can
// hold the matrices.
static void run_round(StepRound *round, Bench *bench, int step)
{
    *round = (StepRound){0};
    bench->times = (StepTimes){.clock = bench->clock};
    bench->ws.times = &bench->times;
    wait_for_ranks(bench);
    pass_forward(bench, round);
    time_products(bench, round);
    pass_loss(bench, round);
    time_products(bench, round);
    pass_backward_and_reduce(bench, round);
    update(bench, round, step);
    memcpy(round->parts_s, bench->times.seconds, sizeof round->parts_s);
    round->step_s = round->passes_s + round->waits_s;
    for (int stage = 0; stage < N_STAGES; stage++)
        round->step_s += round->stages_s[stage];
}

// A StepRound is doubles alone, so rounds are averaged as one vector in one all-reduce.
static void average_over_ranks(const Comm *comm, StepRound *rounds, int n_rounds)
{
    _Static_assert(sizeof(StepRound) % sizeof(double) == 0, "only doubles");
    double *values = (double *)rounds;
    const int64_t count = (int64_t)n_rounds * (int64_t)(sizeof *rounds / sizeof(double));
    comm_sum_doubles(comm, values, count);
    for (int64_t i = 0; i < count; i++)
        values[i] /= comm->size;
}

// One pass over everything before the first round: threads, connections and OpenBLAS's buffers are
// made on first use.
static void run_rounds(Bench *bench, StepRound *rounds)
{
    StepSetting *setting = bench->setting;
    const int n_rounds = setting->n_rounds;
    blas_warm_up_threads();
    time_products(bench, &(StepRound){0}); // and packing buffers
    reduce_scatter(bench);
    gather(bench);
    const double start_s = log_seconds(), start_cpu_s = cpu_s();
    for (int i = 0; i < n_rounds; i++)
        run_round(&rounds[i], bench, i + 1);
    setting->core_share = (cpu_s() - start_cpu_s) / (log_seconds() - start_s) /
                          (setting->n_threads * setting->n_ranks);
    comm_sum_doubles(bench->comm, &setting->core_share, 1);
    average_over_ranks(bench->comm, rounds, n_rounds);
}

// Collective. The first place() measures the arena, allocate() places again with memory.
static Status measure(Bench *bench, StepRound *rounds)
{
    const StepSetting *setting = bench->setting;
    TRY(comm_agree(bench->comm, partition_create(&bench->partition, &setting->shape,
                                                 setting->n_ranks, bench->comm->rank)));
    place(bench);
    TRY(check_memory(bench));
    TRY(comm_agree(bench->comm, allocate(bench)));
    run_rounds(bench, rounds);
    return OK;
}

Status step_run(StepRound *rounds, StepSetting *setting, const Comm *comm)
{
    Bench bench = {.comm = comm,
                   .setting = setting,
                   .clock = setting->is_cpu_time ? cpu_s : log_seconds,
                   .arena = arena_start("benchmark")};
    const Status status = measure(&bench, rounds);
    setting->peak_bytes = setting->peak_sum_bytes = (double)plan_peak_resident_bytes();
    comm_max_doubles(comm, &setting->peak_bytes, 1);
    comm_sum_doubles(comm, &setting->peak_sum_bytes, 1);
    params_release(&bench.grads);
    arena_release(&bench.arena);
    partition_release(&bench.partition);
    model_release(&bench.model);
    return status;
}
