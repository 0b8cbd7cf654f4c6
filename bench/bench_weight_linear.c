// The products of one decoding step, all weights of a model once, for batches of N tokens: GB/s of
// weights beside the bandwidth of reading the same memory, and GFLOP/s; then the products of
// prompts beside gemm() with float32 weights. Rounds of all of them alternate; medians are printed.
//
//     OMP_NUM_THREADS=2 build/release/bench/bench_weight_linear [bf16|f16|f32|panels [135m|7b
//     [ROUNDS]]]
//
// panels: bfloat16 weights as products in bfloat16 take them.
//
// On one thread by the CPU time it got, on several by the wall clock.
#include "base/arena.h"
#include "base/simd.h"
#include "bench/timing.h"
#include "model/kernels/gemm.h"
#include "model/kernels/weights/weight_linear.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 99, MAX_PRODUCTS = 5, MOST_N = 512 };

typedef struct Shape {
    const char *name;
    int n_layers;
    int products[MAX_PRODUCTS][2]; // [n_out, n_in] of a layer, closed by 0
    int vocab_size, d_model;       // the head
} Shape;

// qkv, o, gate | up, down; a Llama-2-7B with two layers, as a step of the whole takes long.
static const Shape shapes[] = {
    {"135m", 30, {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}}, 49152, 576},
    {"7b", 2, {{12288, 4096}, {4096, 4096}, {22016, 4096}, {4096, 11008}}, 32000, 4096},
};

static const int batches[] = {1, 2, 3, 4, 5, 8, 16, 32, 64, 128, MOST_N};

enum { N_BATCHES = sizeof batches / sizeof *batches };

typedef struct Bench {
    const Shape *shape;
    DType dtype;
    WeightLayout layout;
    int n_threads;
    int64_t n_weights;
    char *weights;
    float *x, *y, *scratch;
    float *gate; // a float32 matrix, as large as gate
} Bench;

static double now_s(const Bench *bench)
{
    return timing_seconds(bench->n_threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC);
}

static int64_t shape_weights(const Shape *shape)
{
    int64_t count = 0;
    for (int i = 0; shape->products[i][0] > 0; i++)
        count += (int64_t)shape->products[i][0] * shape->products[i][1];
    return count * shape->n_layers + (int64_t)shape->vocab_size * shape->d_model;
}

// Every weight once.
static void run_step(const Bench *bench, int N)
{
    const Shape *shape = bench->shape;
    const int64_t size = dtype_size_bytes(bench->dtype);
    const char *values = bench->weights;
    for (int l = 0; l <= shape->n_layers; l++)
        for (int i = 0; l == shape->n_layers ? i == 0 : shape->products[i][0] > 0; i++) {
            WeightMatrix w = {values, bench->dtype, shape->products[i][0], shape->products[i][1],
                              bench->layout};
            if (l == shape->n_layers) {
                w.n_out = shape->vocab_size;
                w.n_in = shape->d_model;
            }
            weight_linear_forward(bench->y, w.n_out, bench->x, w.n_in, &w, N, false,
                                  bench->scratch);
            values += size * w.n_out * w.n_in;
        }
}

// The product that a float32 model would have.
static void run_gemm(const Bench *bench, int N, int n_out, int n_in)
{
    gemm(COMPUTE_FLOAT32, rows_f32(bench->y, n_out), gemm_matrix(bench->x, n_in),
         gemm_transposed(bench->gate, n_in), N, n_out, n_in, false);
}

HOT static uint64_t sum_words(const uint64_t *words, int64_t count)
{
    uint64_t sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += words[i];
    return sum;
}

static uint64_t read_all(const Bench *bench)
{
    const int64_t part = 1 << 15, count = bench->n_weights * dtype_size_bytes(bench->dtype) / 8;
    uint64_t sum = 0;
#pragma omp parallel for schedule(dynamic) reduction(+ : sum)
    for (int64_t first = 0; first < count - part; first += part)
        sum += sum_words((const uint64_t *)bench->weights + first, part);
    return sum;
}

static Status place(Bench *bench, Arena *arena)
{
    const Shape *shape = bench->shape;
    int64_t most_scratch = 0, widest = shape->vocab_size;
    for (int i = 0; shape->products[i][0] > 0; i++) {
        const int64_t floats =
            weight_linear_scratch_floats(MOST_N, shape->products[i][0], shape->products[i][1]);
        most_scratch = floats > most_scratch ? floats : most_scratch;
    }
    const int64_t head = weight_linear_scratch_floats(MOST_N, shape->vocab_size, shape->d_model);
    most_scratch = head > most_scratch ? head : most_scratch;
    const int64_t n_gate = (int64_t)shape->products[2][0] / 2 * shape->products[2][1];
    for (int pass = 0; pass < 2; pass++) {
        bench->weights = arena_place(arena, bench->n_weights * dtype_size_bytes(bench->dtype), 1);
        bench->x = arena_floats(arena, MOST_N * widest);
        bench->y = arena_floats(arena, MOST_N * widest);
        bench->scratch = arena_floats(arena, most_scratch);
        bench->gate = arena_floats(arena, n_gate);
        if (pass == 0)
            TRY(arena_allocate(arena));
    }
    for (int64_t i = 0; i < MOST_N * widest; i++)
        bench->x[i] = (float)(i % 13) - 6.0f;
    for (int64_t i = 0; i < n_gate; i++)
        bench->gate[i] = (float)(i % 7) - 3.0f;
    for (int64_t i = 0; i < bench->n_weights; i++) {
        const float value = (float)(i % 7) - 3.0f;
        dtype_narrow(bench->weights + i * dtype_size_bytes(bench->dtype), bench->dtype, &value, 1);
    }
    return OK;
}

static void run_rounds(const Bench *bench, int n_rounds)
{
    static double step_s[N_BATCHES][MAX_ROUNDS], read_s[MAX_ROUNDS], gemm_s[MAX_ROUNDS];
    const int n_out = bench->shape->products[2][0] / 2, n_in = bench->shape->products[2][1];
    uint64_t sum = 0;
    for (int round = 0; round < n_rounds; round++) {
        double start_s = now_s(bench), end_s;
        sum += read_all(bench);
        read_s[round] = (end_s = now_s(bench)) - start_s;
        for (int i = 0; i < N_BATCHES; i++) {
            start_s = now_s(bench);
            run_step(bench, batches[i]);
            step_s[i][round] = now_s(bench) - start_s;
        }
        start_s = now_s(bench);
        run_gemm(bench, MOST_N, n_out, n_in);
        gemm_s[round] = now_s(bench) - start_s;
    }
    const double bytes = (double)(bench->n_weights * dtype_size_bytes(bench->dtype));
    const double bandwidth = bytes / timing_median(read_s, n_rounds);
    const double gemm_flops = 2.0 * MOST_N * n_out * n_in / timing_median(gemm_s, n_rounds);
    printf("%s in %s%s on %d threads: %.0f MB, bandwidth %.1f GB/s, gemm %.1f GFLOP/s%s\n",
           bench->shape->name, dtype_name(bench->dtype),
           bench->layout == WEIGHT_PANELS ? " panels" : "", bench->n_threads, bytes / 1e6,
           bandwidth / 1e9, gemm_flops / 1e9, sum == 1 ? " " : "");
    printf("%5s %9s %9s %9s %9s %9s %9s\n", "N", "ms", "GB/s", "of it", "GFLOP/s", "of gemm",
           "x N = 1");
    double first_s = 0;
    for (int i = 0; i < N_BATCHES; i++) {
        const double s = timing_median(step_s[i], n_rounds);
        const double flops = 2.0 * batches[i] * (double)bench->n_weights / s;
        first_s = i == 0 ? s : first_s;
        printf("%5d %9.2f %9.2f %9.2f %9.1f %9.2f %9.2f\n", batches[i], s * 1e3, bytes / s / 1e9,
               bytes / s / bandwidth, flops / 1e9, flops / gemm_flops, batches[i] * first_s / s);
    }
}

int main(int argc, char **argv)
{
    Bench bench = {.shape = &shapes[0], .dtype = DTYPE_BF16, .n_threads = omp_get_max_threads()};
    if (argc > 1 && strcmp(argv[1], "panels") == 0)
        bench.layout = WEIGHT_PANELS;
    else if (argc > 1 && strcmp(argv[1], "bf16") != 0)
        bench.dtype = strcmp(argv[1], "f16") == 0 ? DTYPE_F16 : DTYPE_F32;
    if (argc > 2 && strcmp(argv[2], "7b") == 0)
        bench.shape = &shapes[1];
    const int n_rounds = argc > 3 ? atoi(argv[3]) : 7;
    if (argc > 4 || n_rounds < 1 || n_rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: bench_weight_linear [bf16|f16|f32|panels [135m|7b [ROUNDS]]]\n");
        return BAD_INPUT;
    }
    bench.n_weights = shape_weights(bench.shape);
    Arena arena = arena_start("benchmark");
    if (place(&bench, &arena) != OK) {
        fprintf(stderr, "%s\n", fail_text());
        return FAILED;
    }
    run_rounds(&bench, n_rounds);
    arena_release(&arena);
    return OK;
}
