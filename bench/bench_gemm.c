// The products of a training step, ours (model/kernels/gemm.h) in float32 and bfloat16 and
// OpenBLAS's sgemm in alternation: GFLOP/s by the CPU time that they got, median and best of the
// rounds, and the ratios of the medians.
//
//     OMP_NUM_THREADS=1 build/release/bench/bench_gemm [ROUNDS]
#include "base/arena.h"
#include "base/intmath.h"
#include "bench/timing.h"
#include "model/kernels/gemm.h"
#include "model/kernels/half.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
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

// Operands and result, of the largest product; smaller ones use their beginning.
typedef struct Matrices {
    float *a, *b, *c;
    uint16_t *a_halves, *b_halves, *c_halves;
} Matrices;

// A matrix as gemm() takes it; the leading dimension of a transposed one is its number of rows.
static GemmMatrix matrix(Rows rows, bool transposed)
{
    return transposed ? gemm_rows_transposed(rows) : gemm_rows(rows);
}

static void run_float32(const Product *p, const Matrices *m)
{
    gemm(COMPUTE_FLOAT32, rows_f32(m->c, p->n),
         matrix(rows_f32(m->a, p->a_transposed ? p->m : p->k), p->a_transposed),
         matrix(rows_f32(m->b, p->b_transposed ? p->k : p->n), p->b_transposed), p->m, p->n, p->k,
         p->a_transposed);
}

// The types of a training step: activations and their gradients are bfloat16, weights and their
// gradients float32.
static void run_bfloat16(const Product *p, const Matrices *m)
{
    const Rows a = rows_bf16(m->a_halves, p->a_transposed ? p->m : p->k);
    const int ldb = p->b_transposed ? p->k : p->n;
    const Rows b = p->a_transposed ? rows_bf16(m->b_halves, ldb) : rows_f32(m->b, ldb);
    const Rows c = p->a_transposed ? rows_f32(m->c, p->n) : rows_bf16(m->c_halves, p->n);
    gemm(COMPUTE_BFLOAT16, c, matrix(a, p->a_transposed), matrix(b, p->b_transposed), p->m, p->n,
         p->k, p->a_transposed);
}

static void run_openblas(const Product *p, const Matrices *m)
{
    cblas_sgemm(CblasRowMajor, p->a_transposed ? CblasTrans : CblasNoTrans,
                p->b_transposed ? CblasTrans : CblasNoTrans, p->m, p->n, p->k, 1.0f, m->a,
                p->a_transposed ? p->m : p->k, m->b, p->b_transposed ? p->k : p->n,
                p->a_transposed ? 1.0f : 0.0f, m->c, p->n);
}

typedef void (*Run)(const Product *p, const Matrices *m);

enum { FLOAT32, OPENBLAS, BFLOAT16, N_CONTESTANTS };

static const Run contestants[N_CONTESTANTS] = {run_float32, run_openblas, run_bfloat16};

// A product is repeated until it has 5 GFLOP, as the CPU clock is too coarse for the small ones. A
// weight gradient is added to what is there (beta = 1), as in training; the other products
// overwrite.
static void run_product(const Product *p, const Matrices *m, int n_rounds)
{
    double rates[N_CONTESTANTS][MAX_ROUNDS], medians[N_CONTESTANTS];
    const double flops = 2.0 * p->m * p->n * p->k;
    const int repeats = (int)fmax(1, 5e9 / flops);
    for (int round = 0; round < n_rounds; round++)
        for (int i = 0; i < N_CONTESTANTS; i++) {
            const double start_s = timing_seconds(CLOCK_PROCESS_CPUTIME_ID);
            for (int repeat = 0; repeat < repeats; repeat++)
                contestants[i](p, m);
            rates[i][round] = flops * repeats /
                              (timing_seconds(CLOCK_PROCESS_CPUTIME_ID) - start_s) / 1e9 *
                              omp_get_max_threads();
        }
    for (int i = 0; i < N_CONTESTANTS; i++) // sorted: the last is the best
        medians[i] = timing_median(rates[i], n_rounds);
    printf("%-20s %6d %6d %6d", p->name, p->m, p->n, p->k);
    for (int i = 0; i < N_CONTESTANTS; i++)
        printf(" %8.1f %8.1f", medians[i], rates[i][n_rounds - 1]);
    printf(" %7.2f %7.2f\n", medians[FLOAT32] / medians[OPENBLAS],
           medians[BFLOAT16] / medians[OPENBLAS]);
}

static void place(Arena *arena, Matrices *matrices)
{
    int64_t a = 0, b = 0, c = 0;
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        const Product *p = &products[i];
        a = max_int64(a, (int64_t)p->m * p->k);
        b = max_int64(b, (int64_t)p->k * p->n);
        c = max_int64(c, (int64_t)p->m * p->n);
    }
    matrices->a = arena_floats(arena, a);
    matrices->b = arena_floats(arena, b);
    matrices->c = arena_floats(arena, c);
    matrices->a_halves = arena_place(arena, a, sizeof(uint16_t));
    matrices->b_halves = arena_place(arena, b, sizeof(uint16_t));
    matrices->c_halves = arena_place(arena, c, sizeof(uint16_t));
}

int main(int argc, char **argv)
{
    int n_rounds = argc > 1 ? atoi(argv[1]) : 5;
    if (argc > 2 || n_rounds < 1 || n_rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: bench_gemm [ROUNDS] (at most %d rounds)\n", MAX_ROUNDS);
        return BAD_INPUT;
    }
    Arena arena = arena_start("benchmark");
    Matrices matrices;
    place(&arena, &matrices);
    if (arena_allocate(&arena) != OK) {
        fprintf(stderr, "%s\n", fail_text());
        return FAILED;
    }
    place(&arena, &matrices);
    // Small whole numbers: no denormals, and sums that stay finite over all rounds.
    for (float *value = matrices.a; value < (float *)(void *)matrices.a_halves; value++)
        *value = (float)((value - matrices.a) % 7) - 3.0f;
    for (uint16_t *half = matrices.a_halves;
         half < (uint16_t *)(void *)((char *)arena.block + arena.size_bytes); half++)
        *half = half_f32_to_bf16((float)((half - matrices.a_halves) % 7) - 3.0f);
    printf("kernels: float32 %s, bfloat16 %s; GFLOP/s\n",
           gemm_kernel_name() != NULL ? gemm_kernel_name() : "OpenBLAS's", bf16_kernel_name());
    printf("%-20s %6s %6s %6s %8s %8s %8s %8s %8s %8s %7s %7s\n", "product", "m", "n", "k",
           "float32", "best", "OpenBLAS", "best", "bfloat16", "best", "f32/OB", "bf16/OB");
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        run_product(&products[i], &matrices, n_rounds);
    arena_release(&arena);
    return OK;
}
