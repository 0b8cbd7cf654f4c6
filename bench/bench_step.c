// Time of one training step on one rank - forward, backward, AdamW - for a model of random weights,
// as a share of the sgemm rate measured in alternation with it (square matrices of SGEMM_SIZE, same
// threads). FLOP are counted once, with the causal half of attention.
//
//     OMP_NUM_THREADS=1 build/release/bench/bench_step smollm-135m 2048 mla 5
//
// Arguments: shape (smollm-135m, smollm-360m, llama-2-7b-layer), T, attention (mha or mla), rounds.
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

enum { SGEMM_SIZE = 2048 };

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
    transformer_place(&bench->ws, arena, arena, shape, 1, T, omp_get_max_threads(), true);
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

static double time_sgemm(const Bench *bench)
{
    const int n = SGEMM_SIZE;
    double start_s = log_seconds();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1.0f, bench->a, n, bench->b, n,
                0.0f, bench->c, n);
    return log_seconds() - start_s;
}

typedef struct Times {
    double forward_s, backward_s, update_s, sgemm_s;
} Times;

static Times time_round(Bench *bench, int T)
{
    Times times = {.sgemm_s = time_sgemm(bench)};
    memset(bench->flat_grads, 0, (size_t)bench->grads.count * sizeof(float));
    double start_s = log_seconds();
    transformer_forward(&bench->ws, &bench->model, bench->inputs, NULL);
    double forward_s = log_seconds();
    transformer_loss(&bench->ws, &bench->model, bench->targets, 1.0f / (float)T, &bench->grads);
    transformer_backward(&bench->ws, &bench->model, bench->inputs, &bench->grads);
    double backward_s = log_seconds();
    const AdamW rule = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
    adamw_update(bench->model.params.flat, bench->m, bench->v, bench->flat_grads,
                 bench->grads.count, &rule, 1e-4, 1.0, 1);
    times.forward_s = forward_s - start_s;
    times.backward_s = backward_s - forward_s;
    times.update_s = log_seconds() - backward_s;
    return times;
}

static void print_round(const Times *times, double flops, int T)
{
    const double size = SGEMM_SIZE;
    double sgemm = 2 * size * size * size / times->sgemm_s;
    double step_s = times->forward_s + times->backward_s + times->update_s;
    printf("forward %7.3f s  head+backward %7.3f s  AdamW %6.3f s  %7.1f tokens/s  %6.1f GFLOP/s = "
           "%.3f of sgemm %6.1f  peak %.2f GiB\n",
           times->forward_s, times->backward_s, times->update_s, T / step_s, flops / step_s / 1e9,
           flops / step_s / sgemm, sgemm / 1e9, (double)plan_peak_resident_bytes() / (1 << 30));
}

static Status run(const char *name, int T, bool is_mla, int rounds)
{
    size_t n_shapes = sizeof shapes / sizeof shapes[0], i = 0;
    while (i < n_shapes && strcmp(shapes[i].name, name) != 0)
        i++;
    if (i == n_shapes)
        return fail(BAD_INPUT, "unknown shape '%s'; see the head of bench/bench_step.c", name);
    ModelShape shape = shapes[i].shape;
    if (is_mla)
        TRY(shape_convert(&shape, &shapes[i].shape, shapes[i].rope_pairs, shapes[i].d_kv,
                          SVD_JOINT));
    Bench bench;
    TRY(start(&bench, &shape, T));
    time_round(&bench, T); // touches the memory
    for (int round = 0; round < rounds; round++) {
        Times times = time_round(&bench, T);
        print_round(&times, shape_train_flops(&shape, T), T);
    }
    params_release(&bench.grads);
    arena_release(&bench.arena);
    model_release(&bench.model);
    return OK;
}

int main(int argc, char **argv)
{
    if (argc != 5 || atoi(argv[2]) < 1 || atoi(argv[4]) < 1) {
        fprintf(stderr, "usage: bench_step SHAPE T mha|mla ROUNDS\n");
        return BAD_INPUT;
    }
    Status status = run(argv[1], atoi(argv[2]), strcmp(argv[3], "mla") == 0, atoi(argv[4]));
    if (status != OK)
        log_error("%s", fail_text());
    return (int)status;
}
