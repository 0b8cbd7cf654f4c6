// Attention over the cache by every kernel and both ways through MLA, in one body, against the
// oracle: whole rows of scores over keys and values expanded in double. The oracle reads the cache
// as the kernels do, so that the rounding of the cache itself is no error.
#include "tests/support/testing.h"
#include "tests/support/testing_compute.h"

#include "infer/attention/attend_kernel.h"
#include "tests/reference/ref.h"
#include "tests/reference/ref_attend.h"

#include <limits.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct Case {
    int K, G, E;
    int P, d_kv; // d_kv 0: original attention or shared form
    SvdKind svd;
    int latent; // of the shared form
    bool qk_norm;
} Case;

// Forms and widths: original (MHA, GQA, MQA, widths of part of a vector), joint, split, all pairs
// rotated, R odd, a latent wider and narrower than a head. Shared: one slot, more slots than pairs
// of a head, latents of part of a vector, of a head's width, and one that expanding pays for. Last
// those whose keys have factors.
static const Case cases[] = {
    {1, 1, 8},
    {2, 1, 64},
    {3, 3, 64},
    {2, 4, 6},
    {1, 5, 128},
    {3, 3, 64, 4, 16, SVD_JOINT},
    {3, 3, 64, 4, 16, SVD_SPLIT},
    {1, 3, 10, 2, 7, SVD_JOINT},
    {3, 1, 12, 1, 5, SVD_JOINT},
    {2, 2, 8, 4, 6, SVD_JOINT},
    {2, 2, 8, 3, 4, SVD_SPLIT},
    {2, 1, 8, 1, 8, SVD_JOINT},
    {4, 1, 32, 4, 40, SVD_JOINT},
    {4, 2, 32, 4, 48, SVD_SPLIT},
    {5, 7, 16, 2, 16, SVD_JOINT},
    {3, 3, 64, 12, 0, SVD_JOINT, 24},
    {2, 4, 16, 1, 0, SVD_JOINT, 7},
    {4, 1, 8, 13, 0, SVD_JOINT, 8},
    {3, 2, 10, 5, 0, SVD_JOINT, 60},
    {4, 1, 32, 6, 0, SVD_JOINT, 200},
    {3, 3, 64, 4, 16, SVD_JOINT, .qk_norm = true},
    {2, 2, 8, 3, 4, SVD_SPLIT, .qk_norm = true},
    {4, 1, 32, 4, 40, SVD_JOINT, .qk_norm = true},
};

enum { N_CASES = sizeof cases / sizeof *cases, LAYERS = 2, MAX_JOBS = 70 };

typedef struct Fixture {
    ModelShape shape;
    KvCache *cache;
    KvSequence *sequences[MAX_JOBS];
    AttendJob jobs[MAX_JOBS];
    float *expected[MAX_JOBS];
    int n_jobs, ld_q;
    float *up_k, *up_v; // exact in bfloat16
    uint16_t *up_k_bf16, *up_v_bf16;
    uint64_t seed;
} Fixture;

static ModelShape shape_of(const Case *c)
{
    ModelShape shape = {.n_layers = LAYERS,
                        .d_model = 4096,
                        .n_heads = c->K * c->G,
                        .n_kv_heads = c->K,
                        .head_dim = c->E,
                        .d_ffn = 1,
                        .max_positions = 4096,
                        .vocab_size = 1,
                        .rope_pairs = c->E / 2,
                        .qk_norm = c->qk_norm,
                        .rope_theta = 1e4,
                        .rms_eps = 1e-5};
    if (c->d_kv > 0 || c->latent > 0) {
        shape.rope_pairs = c->P;
        shape.d_kv = c->d_kv;
        shape.svd = c->svd;
        shape.latent = c->latent;
    }
    return shape;
}

// Normal floats rounded to bfloat16, and the same as bfloat16.
static float *make_weight(uint16_t **halves, int64_t count, double scale, uint64_t seed)
{
    float *weight = ref_random(count, scale, seed);
    *halves = calloc((size_t)count + 1, sizeof **halves);
    dtype_narrow(*halves, DTYPE_BF16, weight, count);
    dtype_widen(weight, *halves, DTYPE_BF16, count);
    return weight;
}

static Fixture make_fixture(const Case *c, const KvFormat *format)
{
    Fixture f = {.shape = shape_of(c), .seed = 1};
    const ModelShape *s = &f.shape;
    assert_ok(kv_cache_create(&f.cache, s, format, 0));
    f.ld_q = shape_dim(s, DIM_QUERY) + 3; // rows are a part of longer ones
    const int width = shape_dim(s, DIM_UP_INPUT);
    const int64_t k_rows = shape_is_mla(s) ? shape_dim(s, DIM_K_NOPE) : 0;
    const int64_t v_rows = shape_is_mla(s) ? shape_dim(s, DIM_UP_VALUE) : 0;
    const double scale = width > 0 ? 1 / sqrt(width) : 0;
    f.up_k = make_weight(&f.up_k_bf16, k_rows * width, scale, 101);
    f.up_v = make_weight(&f.up_v_bf16, v_rows * width, scale, 102);
    return f;
}

// Writes n positions of all layers at the sequence's end.
static void write_positions(Fixture *f, KvSequence *sequence, int n, double key_scale)
{
    const int keys = kv_part_channels(kv_key_part(&f->shape)),
              values = kv_part_channels(kv_value_part(&f->shape)),
              factors = shape_key_factors(&f->shape), ld = values + factors;
    assert_ok(kv_sequence_reserve(sequence, n));
    for (int layer = 0; layer < LAYERS; layer++) {
        float *key = ref_random((int64_t)n * keys, key_scale, f->seed++);
        float *value = ref_random((int64_t)n * ld, 1.0, f->seed++);
        for (int i = 0; i < n * factors; i++) // positive, about 1
            value[i / factors * ld + values + i % factors] = 0.5f + 0.25f * (float)(i % 5);
        kv_write(sequence, layer, key, keys, value, ld, n);
        free(key);
        free(value);
    }
}

// A sequence of `first` committed positions and `count` written ones, and a job for the latter.
static void add_job(Fixture *f, int first, int count, double scale)
{
    const int i = f->n_jobs++;
    assert_ok(kv_sequence_create(&f->sequences[i], f->cache));
    for (int done = 0; done < first;) { // committed in pieces, as chunks of a prompt are
        const int n = done + 100 < first ? 100 : first - done;
        write_positions(f, f->sequences[i], n, scale);
        assert_ok(kv_sequence_commit(f->sequences[i], n));
        done += n;
    }
    assert_ok(kv_sequence_end_prompt(f->sequences[i])); // the reference policy quantizes now
    write_positions(f, f->sequences[i], count, scale);
    f->jobs[i] = (AttendJob){.sequence = f->sequences[i],
                             .q = ref_random((int64_t)count * f->ld_q, scale, f->seed++),
                             .first = first,
                             .count = count};
    f->expected[i] = ref_nans((int64_t)count * f->shape.n_heads * f->shape.head_dim);
}

static void release_fixture(Fixture *f)
{
    for (int i = 0; i < f->n_jobs; i++) {
        free((void *)(uintptr_t)f->jobs[i].q);
        free(f->expected[i]);
        kv_sequence_release(f->sequences[i]);
    }
    kv_cache_release(f->cache);
    free(f->up_k);
    free(f->up_v);
    free(f->up_k_bf16);
    free(f->up_v_bf16);
}

// What the sum of two bfloat16 parts loses of queries and probabilities.
static double split_error(const AttendKernel *kernel)
{
    return strcmp(kernel->name, "AMX") == 0 ? 1e-5 : 0; // seen 5.6e-6
}

// At a multiple of 64 bytes, NaN.
static float *make_scratch(int64_t count)
{
    float *scratch = aligned_alloc(64, (size_t)(count + 15) / 16 * 64);
    assert_non_null(scratch);
    memset(scratch, 0xff, (size_t)count * sizeof *scratch);
    return scratch;
}

// Jobs by one kernel in one call, into buffers of their own. Scratch is one block of exactly the
// stated size, so that the sanitizer sees an overrun.
static void run_jobs(const Fixture *f, AttendJob *jobs, int n_jobs, const AttendKernel *kernel,
                     int expand_from, int layer)
{
    const ModelShape *s = &f->shape;
    const int width = shape_dim(s, DIM_UP_INPUT), row = s->n_heads * s->head_dim;
    const WeightMatrix up_k = {f->up_k_bf16, DTYPE_BF16, shape_dim(s, DIM_K_NOPE), width},
                       up_v = {f->up_v_bf16, DTYPE_BF16, shape_dim(s, DIM_UP_VALUE), width};
    int n_tokens = 0;
    for (int i = 0; i < n_jobs; i++) {
        jobs[i].out = ref_nans((int64_t)jobs[i].count * row);
        n_tokens += jobs[i].count;
    }
    float *scratch =
        make_scratch(attend_scratch_floats(s, n_jobs, n_tokens, omp_get_max_threads()));
    attend_by(kernel, expand_from, jobs, n_jobs, layer, s, &up_k, &up_v, f->ld_q, scratch);
    free(scratch);
}

static int64_t out_floats(const Fixture *f, int job)
{
    return (int64_t)f->jobs[job].count * f->shape.n_heads * f->shape.head_dim;
}

static void compare_kernel(Fixture *f, const AttendKernel *kernel, int expand_from, int layer,
                           double tolerance)
{
    run_jobs(f, f->jobs, f->n_jobs, kernel, expand_from, layer);
    for (int i = 0; i < f->n_jobs; i++) {
        testing_assert_close(kernel->name, f->jobs[i].out, f->expected[i], out_floats(f, i),
                             tolerance + split_error(kernel));
        free(f->jobs[i].out);
    }
}

// Every kernel, absorbed and expanded, on 1 and 4 threads in layer 0 and on 2 in layer 1.
static void compare(Fixture *f, double tolerance)
{
    const AttendDims dims = attend_dims(&f->shape);
    const int n_threads = omp_get_max_threads();
    for (int layer = 0; layer < LAYERS; layer++) {
        for (int i = 0; i < f->n_jobs; i++)
            f->jobs[i].out = f->expected[i];
        ref_attend(f->jobs, f->n_jobs, layer, &f->shape, f->up_k, f->up_v, f->ld_q);
        for (int threads = 1; threads <= 4; threads *= 2) {
            omp_set_num_threads(threads);
            for (int id = 0; id < N_ATTEND_KERNELS; id++) {
                const AttendKernel *kernel = attend_kernel((AttendKernelId)id, &dims);
                if (kernel == NULL)
                    continue;
                compare_kernel(f, kernel, INT_MAX, layer, tolerance);
                compare_kernel(f, kernel, 2, layer, tolerance);
            }
        }
    }
    omp_set_num_threads(n_threads);
}

static void compare_plain(const Case *c, KvType type, const int (*jobs)[2], int n_jobs)
{
    const KvFormat format = kv_format_plain(type);
    Fixture f = make_fixture(c, &format);
    for (int i = 0; i < n_jobs; i++)
        add_job(&f, jobs[i][0], jobs[i][1], 1.0);
    compare(&f, 5e-6); // seen 1.2e-6
    release_fixture(&f);
}

// Jobs of different lengths together, around the borders of blocks; prompts from the beginning.
static void test_lengths_around_the_blocks(void **state)
{
    (void)state;
    static const int jobs[][2] = {{0, 1},  {1, 1},  {62, 1}, {63, 1},  {64, 1},
                                  {65, 3}, {0, 64}, {0, 65}, {127, 2}, {300, 1}};
    for (int i = 0; i < N_CASES; i++)
        compare_plain(&cases[i], i % 2 == 0 ? KV_BFLOAT16 : KV_FLOAT32, jobs,
                      sizeof jobs / sizeof *jobs);
}

static void test_both_types_of_rows(void **state)
{
    (void)state;
    static const int jobs[][2] = {{129, 1}};
    for (int i = 0; i < N_CASES; i++)
        for (int type = KV_FLOAT32; type <= KV_BFLOAT16; type++)
            compare_plain(&cases[i], (KvType)type, jobs, 1);
}

// Chunks over several ranges of expanded blocks, with jobs of one position beside them.
static void test_chunks_of_prompts(void **state)
{
    (void)state;
    static const int jobs[][2] = {{700, 1}, {530, 150}, {0, 37}, {64, 1}, {100, 70}};
    compare_plain(&cases[2], KV_BFLOAT16, jobs, 5);
    compare_plain(&cases[5], KV_BFLOAT16, jobs, 5);
    compare_plain(&cases[6], KV_BFLOAT16, jobs, 5);
    compare_plain(&cases[15], KV_BFLOAT16, jobs, 5);
    compare_plain(&cases[19], KV_FLOAT32, jobs, 5);
}

// Products of chunks in bfloat16, by every kernel for it that this machine has.
static void test_chunks_in_bfloat16(void **state)
{
    (void)state;
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    for (int i = 0; i < N_CASES; i++) {
        Fixture f = make_fixture(&cases[i], &format);
        const AttendDims dims = attend_dims(&f.shape);
        add_job(&f, 530, 150, 1.0);
        add_job(&f, 0, 37, 1.0);
        for (int j = 0; j < f.n_jobs; j++) {
            f.jobs[j].out = f.expected[j];
            f.jobs[j].compute = COMPUTE_BFLOAT16;
        }
        ref_attend(f.jobs, f.n_jobs, 0, &f.shape, f.up_k, f.up_v, f.ld_q);
        for (int kernel = -1; testing_next_kernel(&kernel);) {
            compare_kernel(&f, attend_kernel(ATTEND_WIDENED, &dims), 2, 0, 0.02); // seen 0.0072
        }
        release_fixture(&f);
    }
}

static void test_more_jobs_than_a_batch_holds(void **state)
{
    (void)state;
    int jobs[MAX_JOBS][2];
    for (int i = 0; i < MAX_JOBS; i++) {
        jobs[i][0] = 3 * i;
        jobs[i][1] = 1 + i % 2;
    }
    compare_plain(&cases[2], KV_BFLOAT16, (const int(*)[2])jobs, MAX_JOBS);
    compare_plain(&cases[5], KV_BFLOAT16, (const int(*)[2])jobs, MAX_JOBS);
    compare_plain(&cases[15], KV_BFLOAT16, (const int(*)[2])jobs, MAX_JOBS);
}

// Per channel, which kernels decode, with bits of their own for both parts; in the libraries'
// groups; and by the policy that quantizes the prompt whole.
static void test_quantized_blocks(void **state)
{
    (void)state;
    static const KvFormat formats[] = {
        {KV_BFLOAT16, KV_CHANNEL, false, 8, 2, 0}, {KV_BFLOAT16, KV_CHANNEL, false, 4, 3, 0},
        {KV_FLOAT32, KV_CHANNEL, false, 3, 4, 0},  {KV_BFLOAT16, KV_CHANNEL, false, 2, 8, 0},
        {KV_BFLOAT16, KV_HQQ, false, 4, 4, 0},     {KV_BFLOAT16, KV_QUANTO, true, 4, 4, 0},
    };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        for (int c = 2; c < N_CASES; c += i < 4 ? 2 : 4) {
            if (formats[i].reference_policy && cases[c].qk_norm) // refused
                continue;
            Fixture f = make_fixture(&cases[c], &formats[i]);
            add_job(&f, 200, 1, 1.0);
            add_job(&f, 330, 3, 1.0);
            compare(&f, 5e-6); // seen 2e-6
            release_fixture(&f);
        }
}

// Scores of some thousands: a float of that size resolves 1e-4, so that is how well probabilities
// can be known.
static void test_large_scores(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i += 5) {
        const KvFormat format = kv_format_plain(KV_BFLOAT16);
        Fixture f = make_fixture(&cases[i], &format);
        add_job(&f, 200, 1, 30.0);
        add_job(&f, 70, 5, 30.0);
        compare(&f, 2e-3); // seen 3.9e-6
        release_fixture(&f);
    }
}

// Each job alone on one thread, then all on several: shorter than a block, of whole and broken
// parts of blocks, and of more blocks than parts.
static void test_bits_depend_on_the_job_alone(void **state)
{
    (void)state;
    static const int jobs[][2] = {{20, 1}, {255, 1}, {700, 3}, {330, 40}, {4300, 1}};
    const int n_threads = omp_get_max_threads();
    for (int c = 0; c < N_CASES; c++) {
        const KvFormat format = kv_format_plain(KV_BFLOAT16);
        Fixture f = make_fixture(&cases[c], &format);
        for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++)
            add_job(&f, jobs[i][0], jobs[i][1], 1.0);
        const AttendDims dims = attend_dims(&f.shape);
        for (int id = 0; id < N_ATTEND_KERNELS; id++) {
            const AttendKernel *kernel = attend_kernel((AttendKernelId)id, &dims);
            if (kernel == NULL)
                continue;
            float *alone[MAX_JOBS];
            omp_set_num_threads(1);
            for (int i = 0; i < f.n_jobs; i++) {
                run_jobs(&f, &f.jobs[i], 1, kernel, 32, 0);
                alone[i] = f.jobs[i].out;
            }
            for (int threads = 1; threads <= 4; threads++) {
                omp_set_num_threads(threads);
                run_jobs(&f, f.jobs, f.n_jobs, kernel, 32, 0);
                for (int i = 0; i < f.n_jobs; i++) {
                    assert_memory_equal(f.jobs[i].out, alone[i],
                                        (size_t)out_floats(&f, i) * sizeof(float));
                    free(f.jobs[i].out);
                }
            }
            for (int i = 0; i < f.n_jobs; i++)
                free(alone[i]);
        }
        release_fixture(&f);
    }
    omp_set_num_threads(n_threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths_around_the_blocks),
        cmocka_unit_test(test_both_types_of_rows),
        cmocka_unit_test(test_chunks_of_prompts),
        cmocka_unit_test(test_chunks_in_bfloat16),
        cmocka_unit_test(test_more_jobs_than_a_batch_holds),
        cmocka_unit_test(test_quantized_blocks),
        cmocka_unit_test(test_large_scores),
        cmocka_unit_test(test_bits_depend_on_the_job_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
