// Attention over the KV cache (infer/attention): time per layer and token of decoding and of
// chunks of a prompt, for the original attention and converted ones, by every kernel the machine
// has, beside the measured memory bandwidth and the attention of a training step's forward.
//
//     OMP_NUM_THREADS=2 build/release/bench/bench_attend [MODEL] [DEPTH] [ROUNDS] [BITS]
//
// MODEL: 135M, 1.7B, 7B or all; DEPTH: cached positions, 0: a list of them. BITS of the cache, as
// generate's --kv-bits has them (16). Printed is the best of ROUNDS, by the CPU time that a thread
// got, as other work may share the cores. Layers are read in turn, so that the cache comes from
// memory and not from a cache of the processor.
#include "base/arena.h"
#include "bench/operands.h"
#include "bench/timing.h"
#include "infer/attention/attend_kernel.h"
#include "model/attention/attention_form.h"
#include "model/convert/convert_target.h"
#include "model/model.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 512, FORWARD = 512 };

typedef struct BenchModel {
    const char *name;
    int L, H, K, E, P;
    int d_kv[4]; // 0: original
} BenchModel;

static const BenchModel models[] = {
    {"135M", 30, 9, 3, 64, 4, {0, 32, 16, 8}},
    {"1.7B", 24, 32, 32, 64, 4, {0, 32, 16, 8}},
    {"7B", 32, 32, 32, 128, 8, {0, 64, 32, 16}},
};

// Forms of attention: the original, a latent per KV head of each width, and the shared form with
// the same caches.
enum { N_FORMS = 7 };

static const int lengths[] = {64, 2048, 8192, 32768};

static Rows random_rows(int64_t n, int width)
{
    return rows_f32(operands_random(n * width + 1), width);
}

static uint64_t sum_words(const uint64_t *words, int64_t count)
{
    uint64_t sum = 0;
#pragma omp parallel for reduction(+ : sum) schedule(static)
    for (int64_t i = 0; i < count; i++)
        sum += words[i];
    return sum;
}

static double used_s(void)
{
    return timing_seconds(CLOCK_PROCESS_CPUTIME_ID) / omp_get_max_threads();
}

// GB/s of reading 512 MiB on all threads.
static double measure_bandwidth(int n_rounds)
{
    const int64_t count = (int64_t)64 << 20;
    uint64_t *words = operands_allocate(count * 8), sum = 0;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++)
        words[i] = (uint64_t)i;
    double best_s = INFINITY;
    for (int round = 0; round < n_rounds; round++) {
        const double start_s = used_s();
        sum += sum_words(words, count);
        best_s = fmin(best_s, used_s() - start_s);
    }
    free(words);
    return sum == 1 ? 0 : (double)count * 8 / best_s / 1e9;
}

static void or_exit(Status status)
{
    if (status != OK) {
        fprintf(stderr, "%s\n", fail_text());
        exit(1);
    }
}

static int d_kv_of(const BenchModel *m, int form)
{
    return m->d_kv[form < 4 ? form : form - 3];
}

static ModelShape shape_of(const BenchModel *m, int form, int n_layers)
{
    const int d_kv = d_kv_of(m, form);
    ModelShape shape = {.n_layers = n_layers,
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
    if (form >= 4) {
        const ModelShape original = shape_original(&shape);
        const ConvertTarget target = {.form = FORM_SHARED,
                                      .cache = (2.0 * m->P + d_kv) / (2.0 * m->E)};
        or_exit(convert_target_shape(&shape, &original, &target));
    }
    return shape;
}

typedef struct Bench {
    const BenchModel *model;
    ModelShape shape;
    WeightMatrix up_k, up_v;
    float *q, *out;
    float *scratch;
    KvCache *cache;
    KvSequence *sequence;
    int ld_q;
} Bench;

static WeightMatrix random_weight(int rows, int columns)
{
    const int64_t count = (int64_t)rows * columns;
    float *values = operands_random(count);
    uint16_t *halves = operands_allocate(2 * count);
    dtype_narrow(halves, DTYPE_BF16, values, count);
    free(values);
    return (WeightMatrix){halves, DTYPE_BF16, rows, columns};
}

// Layers so that the cache is about 64 MiB, at least 2.
static Bench make_bench(const BenchModel *m, int form, int length, const KvFormat *format)
{
    Bench b = {.model = m, .shape = shape_of(m, form, 1)};
    const double layer_bytes = kv_format_bytes_per_token(format, &b.shape) * length;
    const int n_layers = (int)fmax(2, fmin(m->L, 67e6 / layer_bytes));
    b.shape.n_layers = n_layers;
    const int width = shape_dim(&b.shape, DIM_UP_INPUT);
    if (form > 0) {
        b.up_k = random_weight(shape_dim(&b.shape, DIM_K_NOPE), width);
        b.up_v = random_weight(shape_dim(&b.shape, DIM_UP_VALUE), width);
    }
    b.ld_q = shape_dim(&b.shape, DIM_QUERY);
    b.q = operands_random((int64_t)CHUNK * b.ld_q);
    b.out = operands_random((int64_t)CHUNK * shape_dim(&b.shape, DIM_Q));
    b.scratch =
        operands_allocate(4 * attend_scratch_floats(&b.shape, 1, CHUNK, omp_get_max_threads()));
    or_exit(kv_cache_create(&b.cache, &b.shape, format, 0));
    or_exit(kv_sequence_create(&b.sequence, b.cache));
    const int keys = kv_part_channels(kv_key_part(&b.shape)),
              values = kv_part_channels(kv_value_part(&b.shape));
    float *rows = operands_random((int64_t)KV_BLOCK_TOKENS * (keys > values ? keys : values));
    for (int done = 0; done < length; done += KV_BLOCK_TOKENS) {
        or_exit(kv_sequence_reserve(b.sequence, KV_BLOCK_TOKENS));
        for (int layer = 0; layer < n_layers; layer++)
            kv_write(b.sequence, layer, rows, keys, rows, values, KV_BLOCK_TOKENS);
        or_exit(kv_sequence_commit(b.sequence, KV_BLOCK_TOKENS));
    }
    free(rows);
    return b;
}

static void release_bench(Bench *b)
{
    kv_sequence_release(b->sequence);
    kv_cache_release(b->cache);
    free((void *)(uintptr_t)b->up_k.values);
    free((void *)(uintptr_t)b->up_v.values);
    free(b->q);
    free(b->out);
    free(b->scratch);
}

// Seconds per layer of the last `count` of the cached positions.
static double run(const Bench *b, const AttendKernel *kernel, int count)
{
    const int first = kv_sequence_length(b->sequence) - count;
    const AttendDims dims = attend_dims(&b->shape);
    const int expand_from = attend_expand_from(kernel, &dims);
    const AttendJob job = {b->sequence, b->q, b->out, first, count};
    const double start_s = used_s();
    for (int layer = 0; layer < b->shape.n_layers; layer++)
        attend_by(kernel, expand_from, &job, 1, layer, &b->shape, &b->up_k, &b->up_v, b->ld_q,
                  b->scratch);
    return (used_s() - start_s) / b->shape.n_layers;
}

static void print_decode(const BenchModel *m, const KvFormat *format, int length, double bandwidth,
                         int n_rounds)
{
    double original_s = 0;
    for (int form = 0; form < N_FORMS; form++) {
        Bench b = make_bench(m, form, length, format);
        const AttendDims dims = attend_dims(&b.shape);
        const double bytes =
            kv_format_bytes_per_token(format, &b.shape) / b.shape.n_layers * length;
        for (int id = N_ATTEND_KERNELS - 1; id >= 0; id--) {
            const AttendKernel *kernel = attend_kernel((AttendKernelId)id, &dims);
            if (kernel == NULL)
                continue;
            double best_s = INFINITY;
            for (int round = 0; round < n_rounds; round++)
                best_s = fmin(best_s, run(&b, kernel, 1));
            if (original_s == 0)
                original_s = best_s;
            printf("%-5s %6d %5d%s %-8s %9.4f ms %7.1f GB/s %5.0f %% %7.2f\n", m->name, length,
                   d_kv_of(m, form), form < 4 ? " " : "s", kernel->name, 1e3 * best_s,
                   bytes / best_s / 1e9, 100 * bytes / best_s / 1e9 / bandwidth,
                   best_s / original_s);
        }
        release_bench(&b);
    }
}

// The attention of forward in a training step over one sequence of FORWARD tokens, up-projections
// included: seconds.
static double run_forward(const ModelShape *shape, int n_rounds)
{
    const AttentionForm *form = attention_form(shape, COMPUTE_FLOAT32, FORWARD);
    const AttentionWidths widths = form->widths(shape);
    const int D = shape->d_model;
    const int64_t N = FORWARD;
    LayerParams weights = {0};
    weights.q = operands_random((int64_t)(3 * D) * D * 2);
    weights.k = weights.v = weights.k_r = weights.down_kv = weights.q;
    weights.up_k =
        operands_random((int64_t)(shape_dim(shape, DIM_K_NOPE) + shape_dim(shape, DIM_UP_VALUE)) *
                        (shape_dim(shape, DIM_UP_INPUT) + 1));
    weights.up_v =
        weights.up_k + (int64_t)shape_dim(shape, DIM_K_NOPE) * shape_dim(shape, DIM_UP_INPUT);
    float *normed = operands_random(N * D), *tables = operands_random(N * shape->head_dim);
    const AttentionSaved saved = {.qkv = random_rows(N, widths.qkv),
                                  .latent = random_rows(N, widths.latent),
                                  .values = random_rows(N, widths.values),
                                  .out = random_rows(N, D),
                                  .lse = operands_random(N * shape->n_heads)};
    int32_t *pairs = calloc((size_t)model_n_pairs(shape), sizeof *pairs);
    const int n_threads = omp_get_max_threads();
    const AttentionContext context = {.shape = shape,
                                      .weights = &weights,
                                      .pairs = pairs,
                                      .cos_table = tables,
                                      .sin_table = tables,
                                      .B = 1,
                                      .T = FORWARD,
                                      .projected = random_rows(N, widths.projected),
                                      .expanded = random_rows(N, widths.expanded),
                                      .tiles = operands_allocate(form->tile_bytes(
                                          shape, COMPUTE_FLOAT32, 1, FORWARD, n_threads, false))};
    double best_s = INFINITY;
    for (int round = 0; round < n_rounds; round++) {
        const double start_s = used_s();
        form->attend(&saved, &context);
        best_s = fmin(best_s, used_s() - start_s);
    }
    printf("      forward of %d tokens by the form %s: %.3f ms\n", FORWARD, form->name,
           1e3 * best_s);
    void *all[] = {weights.q,
                   weights.up_k,
                   normed,
                   tables,
                   saved.qkv.data,
                   saved.latent.data,
                   saved.out.data,
                   saved.values.data,
                   saved.lse,
                   context.projected.data,
                   context.expanded.data,
                   context.tiles};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    free(pairs);
    return best_s;
}

// A chunk whose queries see themselves alone (depth 0), as a training sequence does, and one at the
// end of a longer prompt.
static void print_chunks(const BenchModel *m, const KvFormat *format, int n_rounds)
{
    static const int depths[] = {0, 2048};
    for (int form = 0; form < N_FORMS; form++) {
        for (int i = 0; i < 2; i++) {
            Bench b = make_bench(m, form, CHUNK + depths[i], format);
            const AttendDims dims = attend_dims(&b.shape);
            const double forward_s = depths[i] == 0 ? run_forward(&b.shape, n_rounds) : NAN;
            for (int id = N_ATTEND_KERNELS - 1; id >= 0; id--) {
                const AttendKernel *kernel = attend_kernel((AttendKernelId)id, &dims);
                if (kernel == NULL)
                    continue;
                double best_s = INFINITY;
                for (int round = 0; round < n_rounds; round++)
                    best_s = fmin(best_s, run(&b, kernel, CHUNK));
                printf("%-5s chunk of %d at %5d, d_kv %2d%s %-8s %8.3f ms", m->name, CHUNK,
                       depths[i], d_kv_of(m, form), form < 4 ? " " : "s", kernel->name,
                       1e3 * best_s);
                if (depths[i] == 0)
                    printf(", %.2f of the forward's rate", forward_s / best_s);
                printf("\n");
            }
            release_bench(&b);
        }
    }
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "all";
    const int depth = argc > 2 ? atoi(argv[2]) : 0, n_rounds = argc > 3 ? atoi(argv[3]) : 5;
    KvFormat format = kv_format_plain(KV_BFLOAT16);
    if (argc > 4)
        or_exit(kv_format_parse_bits(&format, argv[4], "BITS"));
    setvbuf(stdout, NULL, _IOLBF, 0);
    const double bandwidth = measure_bandwidth(n_rounds);
    printf("%d threads, memory %.1f GB/s\n", omp_get_max_threads(), bandwidth);
    printf("model  depth  d_kv  kernel      per layer   cache read of memory  "
           "time of the "
           "original's\n");
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (strcmp(name, "all") != 0 && strcmp(name, models[i].name) != 0)
            continue;
        for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++)
            if (depth == 0 || depth == lengths[j])
                print_decode(&models[i], &format, lengths[j], bandwidth, n_rounds);
        if (depth == 0 || depth == CHUNK)
            print_chunks(&models[i], &format, n_rounds);
    }
    return 0;
}
