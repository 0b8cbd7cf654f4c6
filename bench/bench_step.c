// Time of one training step on one rank - forward, backward, AdamW - for a model of random weights,
// part by part, as a share of the sgemm rate measured in alternation with it (square matrices of
// SGEMM_SIZE, same threads). FLOP are counted once, with the causal half of attention; recomputing
// and masked halves of tiles are time without FLOP. Medians over the rounds.
//
//     OMP_NUM_THREADS=1 build/release/bench/bench_step smollm-135m 2048 mla 5
//
// Arguments: shape (smollm-135m, smollm-360m, llama-2-7b-layer), T, attention (mha or mla), rounds,
// and for a quick look fewer layers than the model has (the head then weighs too much).
// One thread is timed by the CPU time it got, so that what else the machine runs is left out;
// several threads are timed by the wall clock.
#include "base/log.h"
#include "base/random.h"
#include "model/transformer.h"
#include "optim/adamw.h"
#include "train/plan.h"

#include <cblas.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SGEMM_SIZE = 2048, MOST_ROUNDS = 99 };

// What a step does beside forward and backward.
typedef enum Extra { EXTRA_ADAMW, EXTRA_ZERO_GRADS, N_EXTRAS } Extra;

// One round's seconds.
typedef struct Round {
    StepTimes times;
    double extra_s[N_EXTRAS];
    double step_s, sgemm_s;
} Round;

typedef struct Bench {
    Model model;
    Arena arena;
    Workspace ws;
    Params grads;
    float *flat_grads, *m, *v;
    int32_t *inputs, *targets;
    float *a, *b, *c; // of sgemm
} Bench;

static const struct {
    const char *name;
    ModelShape shape;
    int rope_pairs, d_kv;
} shapes[] = {
    {"smollm-135m",
     {30, 576, 9, 3, 64, 1536, 49152, 2048, 32, 0, SVD_JOINT, true, 1e4, 1e-5},
     4,
     16},
    {"smollm-360m",
     {32, 960, 15, 5, 64, 2560, 49152, 2048, 32, 0, SVD_JOINT, true, 1e4, 1e-5},
     4,
     16},
    {"llama-2-7b-layer",
     {1, 4096, 32, 32, 128, 11008, 32000, 4096, 64, 0, SVD_JOINT, false, 1e4, 1e-5},
     8,
     32},
};

static void place(Bench *bench, int T)
{
    const ModelShape *shape = &bench->model.shape;
    Arena *arena = &bench->arena;
    transformer_place(&bench->ws, arena, arena, shape, 1, T, omp_get_max_threads(), KEEP_ALL);
    int64_t count = params_count(shape), square = (int64_t)SGEMM_SIZE * SGEMM_SIZE;
    bench->flat_grads = arena_floats(arena, count);
    bench->m = arena_floats(arena, count);
    bench->v = arena_floats(arena, count);
    bench->inputs = arena_place(arena, T, sizeof(int32_t));
    bench->targets = arena_place(arena, T, sizeof(int32_t));
    bench->a = arena_floats(arena, square);
    bench->b = arena_floats(arena, square);
    bench->c = arena_floats(arena, square);
}

static Status start(Bench *bench, const ModelShape *shape, int T)
{
    *bench = (Bench){.arena = arena_start("benchmark")};
    TRY(model_create(&bench->model, shape));
    model_init_random(&bench->model, 0.02, 1);
    place(bench, T);
    TRY(arena_allocate(&bench->arena));
    // Pages appear when first written, which is not what a step costs after the first one.
    memset(bench->arena.block, 0, (size_t)bench->arena.size_bytes);
    place(bench, T);
    TRY(params_place(&bench->grads, shape, bench->flat_grads));
    transformer_start(&bench->ws, &bench->model);
    for (int t = 0; t < T; t++) {
        bench->inputs[t] = (int32_t)(random_bits(1, (uint64_t)t) % (uint64_t)shape->vocab_size);
        bench->targets[t] = (int32_t)(random_bits(2, (uint64_t)t) % (uint64_t)shape->vocab_size);
    }
    for (int64_t i = 0; i < (int64_t)SGEMM_SIZE * SGEMM_SIZE; i++)
        bench->a[i] = bench->b[i] = (float)(i % 7) - 3.0f;
    return OK;
}

static double clock_seconds(void)
{
    if (omp_get_max_threads() > 1)
        return log_seconds();
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double time_sgemm(const Bench *bench)
{
    const int n = SGEMM_SIZE;
    double start_s = clock_seconds();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1.0f, bench->a, n, bench->b, n,
                0.0f, bench->c, n);
    return clock_seconds() - start_s;
}

// A step in four quarters with a sgemm after each.
static void run_round(Round *round, Bench *bench, int T)
{
    *round = (Round){.times = {.clock = clock_seconds}};
    bench->ws.times = &round->times;
    double start_s = clock_seconds();
    transformer_forward(&bench->ws, &bench->model, bench->inputs, NULL);
    round->step_s = clock_seconds() - start_s;
    round->sgemm_s = time_sgemm(bench);

    start_s = clock_seconds();
    transformer_loss(&bench->ws, &bench->model, bench->targets, 1.0f / (float)T, &bench->grads);
    round->step_s += clock_seconds() - start_s;
    round->sgemm_s += time_sgemm(bench);

    start_s = clock_seconds();
    transformer_backward(&bench->ws, &bench->model, bench->inputs, &bench->grads);
    round->step_s += clock_seconds() - start_s;
    round->sgemm_s += time_sgemm(bench);

    const AdamW rule = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
    start_s = clock_seconds();
    adamw_update(bench->model.params.flat, bench->m, bench->v, bench->flat_grads,
                 bench->grads.count, &rule, 1e-4, 1.0, 1);
    double updated_s = clock_seconds();
    memset(bench->flat_grads, 0, (size_t)bench->grads.count * sizeof(float));
    double zeroed_s = clock_seconds();
    round->extra_s[EXTRA_ADAMW] = updated_s - start_s;
    round->extra_s[EXTRA_ZERO_GRADS] = zeroed_s - updated_s;
    round->step_s += zeroed_s - start_s;
    round->sgemm_s = (round->sgemm_s + time_sgemm(bench)) / 4;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Median over the rounds of the double at `offset` in a Round.
static double median(const Round *rounds, int n_rounds, size_t offset)
{
    double values[MOST_ROUNDS];
    for (int i = 0; i < n_rounds; i++)
        memcpy(&values[i], (const char *)&rounds[i] + offset, sizeof(double));
    qsort(values, (size_t)n_rounds, sizeof(double), compare_doubles);
    return values[n_rounds / 2];
}

// Forward's FLOP of one part; backward's are twice as many.
static double forward_flops(const ModelShape *s, int T, StepPart part)
{
    double D = s->d_model, Q = shape_dim(s, DIM_Q), KV = shape_dim(s, DIM_KV), L = s->n_layers;
    double tokens = 2.0 * T;
    switch (part) {
    case STEP_INPUT:
        return tokens * L * D *
               (Q +
                (shape_is_mla(s) ? shape_dim(s, DIM_K_ROPE) + shape_dim(s, DIM_LATENT) : 2 * KV));
    case STEP_UP:
        return shape_is_mla(s)
                   ? tokens * L * shape_dim(s, DIM_LATENT_1) * (shape_dim(s, DIM_K_NOPE) + KV)
                   : 0;
    case STEP_ATTENTION:
        return tokens * L * Q * (T + 1.0);
    case STEP_OUTPUT:
        return tokens * L * Q * D;
    case STEP_FFN:
        return tokens * L * 3 * D * s->d_ffn;
    case STEP_HEAD:
        return tokens * D * s->vocab_size;
    default:
        return 0;
    }
}

typedef struct Row {
    const char *name;
    double flops, seconds;
} Row;

static void print_row(const Row *row, double step_s, double rate)
{
    printf("%-24s %9.2f %9.3f %7.1f%%", row->name, row->flops / 1e9, row->seconds,
           100 * row->seconds / step_s);
    if (row->flops > 0)
        printf(" %9.3f\n", row->flops / row->seconds / rate);
    else
        printf(" %9s\n", "-");
}

static const char *const part_names[N_STEP_PARTS][2] = {
    [STEP_EMBEDDING] = {"embedding", "embedding back"},
    [STEP_NORM] = {"rmsnorm, residual", "rmsnorm back"},
    [STEP_INPUT] = {"q | k | v", "q | k | v back"},
    [STEP_UP] = {"up_k | up_v", "up_k | up_v back"},
    [STEP_ROPE] = {"rope, sorting", "rope, sorting back"},
    [STEP_ATTENTION] = {"attention", "attention back"},
    [STEP_OUTPUT] = {"o", "o back"},
    [STEP_FFN] = {"gate | up, down", "gate | up, down back"},
    [STEP_SWIGLU] = {"swiglu", "swiglu back"},
    [STEP_HEAD] = {"head + loss, both ways", ""},
};

// The row of a part; false if the shape does not have it.
static bool part_row(Row *row, const Round *rounds, int n_rounds, const ModelShape *shape, int T,
                     StepPart part, StepDirection direction)
{
    size_t offset =
        offsetof(Round, times.seconds) + (size_t)(2 * part + direction) * sizeof(double);
    double factor = part == STEP_HEAD ? 3 : direction == STEP_BACKWARD ? 2 : 1;
    *row = (Row){
        .name = part_names[part][direction],
        .flops = factor * forward_flops(shape, T, part),
        .seconds = median(rounds, n_rounds, offset),
    };
    if (part == STEP_INPUT && shape_is_mla(shape))
        row->name = direction == STEP_FORWARD ? "q | k_r | down_kv" : "q | k_r | down_kv back";
    return row->seconds > 0;
}

static void print_table(const Round *rounds, int n_rounds, const ModelShape *shape, int T)
{
    const double size = SGEMM_SIZE;
    double step_s = median(rounds, n_rounds, offsetof(Round, step_s));
    double sgemm_s = median(rounds, n_rounds, offsetof(Round, sgemm_s));
    double rate = 2 * size * size * size / sgemm_s, counted = 0;
    printf("%-24s %9s %9s %8s %9s\n", "part", "GFLOP", "s", "of step", "of sgemm");
    for (int i = 0; i < 2 * N_STEP_PARTS; i++) {
        Row row;
        StepDirection direction = i < N_STEP_PARTS ? STEP_FORWARD : STEP_BACKWARD;
        if (!part_row(&row, rounds, n_rounds, shape, T, (StepPart)(i % N_STEP_PARTS), direction))
            continue;
        counted += row.flops;
        print_row(&row, step_s, rate);
    }
    Row adamw = {"AdamW", 0, median(rounds, n_rounds, offsetof(Round, extra_s[EXTRA_ADAMW]))};
    Row zero = {"zeroing gradients", 0,
                median(rounds, n_rounds, offsetof(Round, extra_s[EXTRA_ZERO_GRADS]))};
    Row step = {"step", shape_train_flops(shape, T), step_s};
    print_row(&adamw, step_s, rate);
    print_row(&zero, step_s, rate);
    print_row(&step, step_s, rate);
    CHECK(counted > 0.9999 * step.flops && counted < 1.0001 * step.flops,
          "parts have %g FLOP, the step %g", counted, step.flops);
    printf("sgemm %.1f GFLOP/s, step %.1f GFLOP/s, %.1f tokens/s, peak %.2f GiB\n", rate / 1e9,
           step.flops / step_s / 1e9, T / step_s, (double)plan_peak_resident_bytes() / (1 << 30));
}

static Status find_shape(ModelShape *out, const char *name, bool is_mla)
{
    size_t n_shapes = sizeof shapes / sizeof shapes[0], i = 0;
    while (i < n_shapes && strcmp(shapes[i].name, name) != 0)
        i++;
    if (i == n_shapes)
        return fail(BAD_INPUT, "unknown shape '%s'; see the head of bench/bench_step.c", name);
    *out = shapes[i].shape;
    if (!is_mla)
        return OK;
    return shape_convert(out, &shapes[i].shape, shapes[i].rope_pairs, shapes[i].d_kv, SVD_JOINT);
}

static Status run(const char *name, int T, bool is_mla, int n_rounds, int n_layers)
{
    ModelShape shape;
    TRY(find_shape(&shape, name, is_mla));
    if (n_layers > 0)
        shape.n_layers = n_layers;
    Bench bench;
    TRY(start(&bench, &shape, T));
    Round rounds[MOST_ROUNDS];
    for (int i = 0; i < n_rounds; i++)
        run_round(&rounds[i], &bench, T);
    printf("%s, %d layers, %s, T %d, %d thread%s, %d rounds\n", name, shape.n_layers,
           is_mla ? "mla" : "mha", T, omp_get_max_threads(),
           omp_get_max_threads() == 1 ? " (CPU time)" : "s", n_rounds);
    print_table(rounds, n_rounds, &shape, T);
    params_release(&bench.grads);
    arena_release(&bench.arena);
    model_release(&bench.model);
    return OK;
}

int main(int argc, char **argv)
{
    bool is_given = argc == 5 || argc == 6;
    int T = is_given ? atoi(argv[2]) : 0, n_rounds = is_given ? atoi(argv[4]) : 0;
    int n_layers = argc == 6 ? atoi(argv[5]) : 0; // 0: all
    bool is_mla = is_given && strcmp(argv[3], "mla") == 0;
    if (T < 1 || n_rounds < 1 || n_rounds > MOST_ROUNDS || (argc == 6 && n_layers < 1) ||
        (!is_mla && strcmp(argv[3], "mha") != 0)) {
        fprintf(stderr, "usage: bench_step SHAPE T mha|mla ROUNDS [LAYERS] (at most %d rounds)\n",
                MOST_ROUNDS);
        return BAD_INPUT;
    }
    Status status = run(argv[1], T, is_mla, n_rounds, n_layers);
    if (status != OK)
        log_error("%s", fail_text());
    return (int)status;
}
