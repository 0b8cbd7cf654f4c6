// The products of a training step, ours (model/kernels/gemm.h) and OpenBLAS's in alternation, on
// one thread: GFLOP/s of both by the CPU time they got, best and median of the rounds, and the
// ratio of the medians.
//
//     OMP_NUM_THREADS=1 build/release/bench/bench_gemm [ROUNDS]
#include "base/arena.h"
#include "bench/timing.h"
#include "model/kernels/gemm.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_ROUNDS = 99 };

typedef struct Product {
    const char *name;
    int m, n, k;
    bool a_transposed, b_transposed;
} Product;

// SmolLM-135M at 2048 tokens, its head by blocks of 512, then a layer of Llama-2-7B.
static const Product products[] = {
    {"square", 2048, 2048, 2048, false, true},
    {"q | k_r | down_kv", 2048, 648, 576, false, true},
    {"  input gradient", 2048, 576, 648, false, false},
    {"  weight gradient", 648, 576, 2048, true, false},
    {"up_k | up_v", 2048, 360, 48, false, true},
    {"  input gradient", 2048, 48, 360, false, false},
    {"  weight gradient", 360, 48, 2048, true, false},
    {"o", 2048, 576, 576, false, true},
    {"  input gradient", 2048, 576, 576, false, false},
    {"  weight gradient", 576, 576, 2048, true, false},
    {"gate | up", 2048, 3072, 576, false, true},
    {"  input gradient", 2048, 576, 3072, false, false},
    {"  weight gradient", 3072, 576, 2048, true, false},
    {"down", 2048, 576, 1536, false, true},
    {"  input gradient", 2048, 1536, 576, false, false},
    {"  weight gradient", 576, 1536, 2048, true, false},
    {"head", 512, 49152, 576, false, true},
    {"  input gradient", 512, 576, 49152, false, false},
    {"  weight gradient", 49152, 576, 512, true, false},
    {"7B: o", 512, 4096, 4096, false, true},
    {"  input gradient", 512, 4096, 4096, false, false},
    {"  weight gradient", 4096, 4096, 512, true, false},
};

// A matrix as gemm() takes it; the leading dimension of a transposed one is its number of rows.
static GemmMatrix matrix(const float *data, int rows, int columns, bool transposed)
{
    return transposed ? gemm_transposed(data, rows) : gemm_matrix(data, columns);
}

// A product is repeated until it has 5 GFLOP, as the CPU clock is too coarse for the small ones. A
// weight gradient is added to what is there (beta = 1), as in training; the other products
// overwrite.
static void run_product(const Product *p, const float *a, const float *b, float *c, int n_rounds)
{
    double ours[MAX_ROUNDS], blas[MAX_ROUNDS];
    const double flops = 2.0 * p->m * p->n * p->k;
    const int repeats = (int)fmax(1, 5e9 / flops);
    for (int round = 0; round < n_rounds; round++) {
        double start_s = timing_seconds(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < repeats; i++)
            gemm(COMPUTE_FLOAT32, rows_f32(c, p->n), matrix(a, p->m, p->k, p->a_transposed),
                 matrix(b, p->k, p->n, p->b_transposed), p->m, p->n, p->k, p->a_transposed);
        double middle_s = timing_seconds(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < repeats; i++)
            cblas_sgemm(CblasRowMajor, p->a_transposed ? CblasTrans : CblasNoTrans,
                        p->b_transposed ? CblasTrans : CblasNoTrans, p->m, p->n, p->k, 1.0f, a,
                        p->a_transposed ? p->m : p->k, b, p->b_transposed ? p->k : p->n,
                        p->a_transposed ? 1.0f : 0.0f, c, p->n);
        ours[round] = flops * repeats / (middle_s - start_s) / 1e9;
        blas[round] = flops * repeats / (timing_seconds(CLOCK_PROCESS_CPUTIME_ID) - middle_s) / 1e9;
    }
    const double our_median = timing_median(ours, n_rounds), // sorted: the last is the best
        blas_median = timing_median(blas, n_rounds);
    printf("%-20s %6d %6d %6d %8.1f %8.1f %8.1f %8.1f %7.2f\n", p->name, p->m, p->n, p->k,
           our_median, ours[n_rounds - 1], blas_median, blas[n_rounds - 1],
           our_median / blas_median);
}

// The three matrices of the largest product; smaller ones use their beginning.
static void place(Arena *arena, float **matrices)
{
    int64_t most[3] = {0};
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        const Product *p = &products[i];
        const int64_t counts[3] = {(int64_t)p->m * p->k, (int64_t)p->k * p->n,
                                   (int64_t)p->m * p->n};
        for (int j = 0; j < 3; j++)
            most[j] = counts[j] > most[j] ? counts[j] : most[j];
    }
    for (int j = 0; j < 3; j++)
        matrices[j] = arena_floats(arena, most[j]);
}

int main(int argc, char **argv)
{
    int n_rounds = argc > 1 ? atoi(argv[1]) : 5;
    if (argc > 2 || n_rounds < 1 || n_rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: bench_gemm [ROUNDS] (at most %d rounds)\n", MAX_ROUNDS);
        return BAD_INPUT;
    }
    Arena arena = arena_start("benchmark");
    float *matrices[3];
    place(&arena, matrices);
    if (arena_allocate(&arena) != OK) {
        fprintf(stderr, "%s\n", fail_text());
        return FAILED;
    }
    place(&arena, matrices);
    // Small whole numbers: no denormals, and sums that stay finite over all rounds.
    for (int64_t i = 0; i < arena.size_bytes / (int64_t)sizeof(float); i++)
        ((float *)arena.block)[i] = (float)(i % 7) - 3.0f;
    printf("kernels: %s; GFLOP/s\n",
           gemm_kernel_name() != NULL ? gemm_kernel_name() : "OpenBLAS's");
    printf("%-20s %6s %6s %6s %8s %8s %8s %8s %7s\n", "product", "m", "n", "k", "ours", "best",
           "OpenBLAS", "best", "ratio");
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        run_product(&products[i], matrices[0], matrices[1], matrices[2], n_rounds);
    arena_release(&arena);
    return OK;
}
