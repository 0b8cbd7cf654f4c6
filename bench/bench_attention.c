// Attention of a training step: time of a layer's forward and backward in every form that the model
// has, in float32 and in bfloat16 by every kernel that the CPU has.
//
//     OMP_NUM_THREADS=2 build/release/bench/bench_attention [MODEL] [T] [ROUNDS] [D_KV] [PRODUCTS]
//
// MODEL: 135M, 1.7B or 7B. D_KV: 0 the original attention; -1: all. The shared form has as many
// numbers in the cache, K P slots and a latent of K d_kv. PRODUCTS: float32, AVX512-BF16 or AMX;
// all without it. Printed is the best of ROUNDS, by the CPU time that a thread got, as other work
// may share the cores. GFLOP/s: of the causal half of two products forward and five backward on
// heads of E, without what a form does besides.
#include "bench/operands.h"
#include "bench/timing.h"
#include "model/attention/attention_form.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct BenchModel {
    const char *name;
    int H, K, E, P;
    int d_kv[4]; // 0: original
} BenchModel;

static const BenchModel models[] = {
    {"135M", 9, 3, 64, 4, {0, 32, 16, 8}},
    {"1.7B", 32, 32, 64, 4, {0, 32, 16, 8}},
    {"7B", 32, 32, 128, 8, {0, 64, 32, 16}},
};

// How products compute: float32, or bfloat16 by a kernel.
typedef struct Way {
    ComputeType compute;
    Bf16Kernel kernel;
    const char *name;
} Way;

static const Way ways[] = {
    {COMPUTE_FLOAT32, BF16_EMULATED, "float32"},
    {COMPUTE_BFLOAT16, BF16_AVX512, "AVX512-BF16"},
    {COMPUTE_BFLOAT16, BF16_AMX, "AMX"},
};

static Rows random_rows(ComputeType compute, int64_t n, int width)
{
    float *values = operands_random(n * width);
    if (compute == COMPUTE_FLOAT32)
        return rows_f32(values, width);
    uint16_t *halves = operands_allocate(n * width * (int64_t)sizeof *halves);
    dtype_narrow(halves, DTYPE_BF16, values, n * width);
    free(values);
    return rows_bf16(halves, width);
}

static ModelShape shape_of(const BenchModel *m, int d_kv)
{
    ModelShape shape = {.n_layers = 1,
                        .d_model = m->H * m->E,
                        .n_heads = m->H,
                        .n_kv_heads = m->K,
                        .head_dim = m->E,
                        .d_ffn = 1,
                        .vocab_size = 1,
                        .max_positions = 1 << 20,
                        .rope_pairs = d_kv > 0 ? m->P : m->E / 2,
                        .d_kv = d_kv,
                        .rope_theta = 1e4,
                        .rms_eps = 1e-5};
    return shape;
}

// A layer's buffers; `up` is read as both up-projections, `d_up` written as their gradients.
typedef struct Layer {
    AttentionSaved saved;
    Rows d_out, d_qkv;
    LayerParams weights, grads;
    void *tiles;
} Layer;

static Layer make_layer(const AttentionForm *form, const ModelShape *shape, ComputeType compute,
                        int T)
{
    const AttentionWidths widths = form->widths(shape);
    const int Q = shape_dim(shape, DIM_Q), width = shape_dim(shape, DIM_UP_INPUT);
    const int64_t k = (int64_t)shape_dim(shape, DIM_K_NOPE) * width,
                  v = (int64_t)shape_dim(shape, DIM_UP_VALUE) * width;
    Layer l = {
        .saved = {.qkv = random_rows(compute, T, widths.qkv),
                  .values = random_rows(compute, T, widths.values),
                  .out = random_rows(compute, T, Q),
                  .lse = operands_random((int64_t)T * shape->n_heads)},
        .d_out = random_rows(compute, T, Q),
        .d_qkv = random_rows(compute, T, widths.qkv),
        .weights.up_k = operands_random(k + v),
        .grads.up_k = operands_random(k + v),
        .tiles =
            operands_allocate(form->tile_bytes(shape, compute, 1, T, omp_get_max_threads(), true)),
    };
    l.weights.up_v = l.weights.up_k + k;
    l.grads.up_v = l.grads.up_k + k;
    return l;
}

static void release_layer(const Layer *l)
{
    void *all[] = {l->saved.qkv.data, l->saved.values.data, l->saved.out.data,
                   l->saved.lse,      l->d_out.data,        l->d_qkv.data,
                   l->weights.up_k,   l->grads.up_k,        l->tiles};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static double used_s(void)
{
    return timing_seconds(CLOCK_PROCESS_CPUTIME_ID) / omp_get_max_threads();
}

// Best seconds of forward and backward.
static void run(double best_s[2], const AttentionForm *form, const ModelShape *shape,
                ComputeType compute, int T, int n_rounds)
{
    Layer l = make_layer(form, shape, compute, T);
    const AttentionContext context = {.compute = compute,
                                      .shape = shape,
                                      .weights = &l.weights,
                                      .B = 1,
                                      .T = T,
                                      .tiles = l.tiles};
    best_s[0] = best_s[1] = INFINITY;
    for (int round = 0; round < n_rounds; round++) {
        const double start_s = used_s();
        form->attend(&l.saved, &context);
        const double middle_s = used_s();
        form->attend_backward(l.d_qkv, &l.grads, l.d_out, &l.saved, &context);
        best_s[0] = fmin(best_s[0], middle_s - start_s);
        best_s[1] = fmin(best_s[1], used_s() - middle_s);
    }
    release_layer(&l);
}

static ModelShape shared_shape_of(const ModelShape *per_head)
{
    ModelShape shape = *per_head;
    shape.rope_pairs *= shape.n_kv_heads;
    shape.latent = shape_dim(per_head, DIM_LATENT);
    shape.d_kv = 0;
    return shape;
}

static const char *attention_name(const ModelShape *shape)
{
    if (shape_is_shared(shape))
        return "shared";
    return shape_is_mla(shape) ? "mla" : "mha";
}

static void print_form(const BenchModel *m, int d_kv, const AttentionForm *form,
                       const ModelShape *shape, int T, int n_rounds, const char *products)
{
    const double product = (double)T * (T + 1) * m->H * m->E; // FLOP of one
    double float32_s[2] = {0};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        if (products != NULL && strcmp(products, ways[i].name) != 0)
            continue;
        if (ways[i].compute == COMPUTE_BFLOAT16) {
            if (!bf16_kernel_is_there(ways[i].kernel))
                continue;
            bf16_force_kernel(ways[i].kernel);
        }
        double best_s[2];
        run(best_s, form, shape, ways[i].compute, T, n_rounds);
        if (i == 0)
            memcpy(float32_s, best_s, sizeof best_s);
        printf("%-5s %5d %4d  %-6s  %-14s  %-11s %9.3f %6.0f %6.2f  %9.3f %6.0f %6.2f\n", m->name,
               T, d_kv, attention_name(shape), form->name, ways[i].name, 1e3 * best_s[0],
               2 * product / best_s[0] / 1e9, float32_s[0] / best_s[0], 1e3 * best_s[1],
               5 * product / best_s[1] / 1e9, float32_s[1] / best_s[1]);
    }
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "135M";
    const int T = argc > 2 ? atoi(argv[2]) : 2048, n_rounds = argc > 3 ? atoi(argv[3]) : 5;
    const int d_kv = argc > 4 ? atoi(argv[4]) : -1;
    const char *products = argc > 5 ? argv[5] : NULL;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%d threads; ratios to float32\n", omp_get_max_threads());
    printf("model     T d_kv  kind    form            products     forward ms GFLOP/s     x"
           "   back ms GFLOP/s     x\n");
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (strcmp(name, models[i].name) != 0)
            continue;
        for (int k = 0; k < 4; k++) {
            if (d_kv >= 0 && d_kv != models[i].d_kv[k])
                continue;
            const ModelShape shape = shape_of(&models[i], models[i].d_kv[k]);
            if (!shape_is_mla(&shape)) {
                print_form(&models[i], models[i].d_kv[k], &attention_forms[ATTENTION_MHA], &shape,
                           T, n_rounds, products);
                continue;
            }
            print_form(&models[i], models[i].d_kv[k], &attention_forms[ATTENTION_MLA_LATENT],
                       &shape, T, n_rounds, products);
            print_form(&models[i], models[i].d_kv[k], &attention_forms[ATTENTION_MLA_EXPANDED],
                       &shape, T, n_rounds, products);
            const ModelShape shared = shared_shape_of(&shape);
            print_form(&models[i], models[i].d_kv[k], &attention_forms[ATTENTION_SHARED_LATENT],
                       &shared, T, n_rounds, products);
            print_form(&models[i], models[i].d_kv[k], &attention_forms[ATTENTION_MLA_EXPANDED],
                       &shared, T, n_rounds, products);
        }
    }
    return 0;
}
