// Attention in the latent space, in every way that products compute, against keys and values
// expanded, and the oracle against central differences.
#include "tests/support/testing.h"
#include "tests/support/testing_compute.h"

#include "model/attention/attention_latent.h"
#include "tests/reference/ref.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct Data {
    const TestingCompute *way;
    LatentDims dims;
    int64_t N, n_rows, n_out, n_lse, n_up_k, n_up_v;
    int row, width;
    float *qkv, *up_k, *up_v, *d_out; // the oracle's inputs
    LatentArrays got, expected;
} Data;

// What is added to is the same for both, what is written starts as NaN.
static LatentArrays make_arrays(const TestingCompute *way, const Data *d, bool add)
{
    return (LatentArrays){
        .qkv = testing_rows(way, d->qkv, d->N, d->row),
        .up_k = d->up_k,
        .up_v = d->up_v,
        .out = testing_rows(way, NULL, d->N, d->width),
        .values = testing_rows(way, NULL, d->N, d->dims.H * d->dims.value_latent),
        .lse = ref_nans(d->n_lse),
        .d_out = testing_rows(way, d->d_out, d->N, d->width),
        .d_qkv = testing_rows(way, NULL, d->N, d->row),
        .d_up_k = add ? ref_random(d->n_up_k, 1.0, 5) : ref_nans(d->n_up_k),
        .d_up_v = add ? ref_random(d->n_up_v, 1.0, 6) : ref_nans(d->n_up_v),
        .add_gradients = add,
    };
}

static Data make_data(const TestingCompute *way, LatentDims dims, bool add)
{
    Data d = {.way = way, .dims = dims, .N = (int64_t)dims.B * dims.T, .width = dims.H * dims.E};
    d.row = latent_columns(&dims).row;
    d.n_rows = d.N * d.row;
    d.n_out = d.N * d.width;
    d.n_lse = d.N * dims.H;
    d.n_up_k = (int64_t)latent_up_heads(&dims) * latent_nope(&dims) * dims.key_latent;
    d.n_up_v = (int64_t)latent_up_heads(&dims) * dims.E * dims.value_latent;
    d.qkv = ref_random(d.n_rows, 1.0, 1);
    d.up_k = ref_random(d.n_up_k, 0.5, 2);
    d.up_v = ref_random(d.n_up_v, 0.5, 3);
    d.d_out = ref_random(d.n_out, 1.0, 4);
    testing_round(way, d.qkv, d.n_rows);
    testing_round(way, d.up_k, d.n_up_k);
    testing_round(way, d.up_v, d.n_up_v);
    testing_round(way, d.d_out, d.n_out);
    d.got = make_arrays(way, &d, add);
    d.expected = make_arrays(testing_way(0), &d, add);
    return d;
}

static void release_arrays(LatentArrays *a)
{
    void *all[] = {a->qkv.data,   a->out.data,   a->values.data, a->lse,
                   a->d_out.data, a->d_qkv.data, a->d_up_k,      a->d_up_v};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static void release_data(Data *d)
{
    release_arrays(&d->got);
    release_arrays(&d->expected);
    float *all[] = {d->qkv, d->up_k, d->up_v, d->d_out};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

// One block per call of exactly the stated size, so that the sanitizer sees an overrun. All ones
// are NaNs, of floats and of halves.
static void *make_scratch(const Data *d, bool is_training)
{
    const int64_t bytes = attention_latent_scratch_bytes(&d->dims, d->way->compute,
                                                         omp_get_max_threads(), is_training);
    void *scratch = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
    assert_non_null(scratch);
    memset(scratch, 0xff, (size_t)bytes);
    return scratch;
}

static void assert_out(const Data *d)
{
    testing_assert_rows(d->way, "out", d->got.out, d->expected.out.data, d->N, d->width, 3e-6,
                        8e-3); // seen 7.4e-7, 6.8e-3
}

// Backward begins without forward's output: it must make it again from the saved values.
static void run_fast(Data *d)
{
    void *scratch = make_scratch(d, false);
    attention_latent_forward(d->way->compute, &d->got, scratch, &d->dims);
    free(scratch);
    assert_out(d);
    free(d->got.out.data);
    d->got.out = testing_rows(d->way, NULL, d->N, d->width);
    scratch = make_scratch(d, true);
    attention_latent_backward(d->way->compute, &d->got, scratch, &d->dims);
    free(scratch);
}

static void compare(const TestingCompute *way, LatentDims dims, bool add)
{
    Data d = make_data(way, dims, add);
    ref_attention_latent_forward(&d.expected, &dims);
    ref_attention_latent_backward(&d.expected, &dims);
    run_fast(&d);
    const LatentArrays *got = &d.got, *expected = &d.expected;
    assert_out(&d);
    testing_assert_floats(way, "lse", got->lse, expected->lse, d.n_lse, 3e-6,
                          8e-3); // seen 2.2e-7, 2.4e-3
    testing_assert_rows(way, "d_qkv", got->d_qkv, expected->d_qkv.data, d.N, d.row, 1e-5,
                        2e-2); // seen 8.2e-7, 6.1e-3
    testing_assert_floats(way, "d_up_k", got->d_up_k, expected->d_up_k, d.n_up_k, 1e-5,
                          2e-2); // seen 6.7e-7, 7.4e-3
    testing_assert_floats(way, "d_up_v", got->d_up_v, expected->d_up_v, d.n_up_v, 1e-5,
                          2e-2); // seen 3.8e-7, 4.0e-3
    release_data(&d);
}

// T around the tiles of 192 keys in float32, 768 in bfloat16, and of 16 to 96 queries.
static void test_lengths_around_the_tiles(void **state)
{
    const TestingCompute *way = testing_compute(state);
    const int lengths[] = {1, 2, 31, 33, 95, 97, 191, 192, 193, 500, 769};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        compare(way, (LatentDims){1, lengths[i], 6, 2, 8, 2, 5, 5, 0}, i % 2 == 0);
}

// The shared form: numbers of heads that fill groups of three, two and one, many heads, more slots
// than a head has pairs, a latent wider than a head.
static void test_shared_keys(void **state)
{
    const TestingCompute *way = testing_compute(state);
    static const LatentDims shapes[] = {
        // B, T, H, K, E, rope, key_latent, value_latent, value_column
        {1, 1, 1, 1, 4, 2, 2, 2, 0, true},     {1, 40, 9, 1, 64, 24, 24, 24, 0, true},
        {2, 33, 4, 1, 16, 20, 3, 3, 0, true},  {3, 17, 7, 1, 32, 8, 16, 16, 0, true},
        {1, 65, 3, 1, 10, 6, 27, 27, 0, true}, {2, 100, 40, 1, 8, 2, 5, 5, 0, true},
        {1, 97, 32, 1, 4, 2, 9, 9, 0, true},   {2, 193, 6, 1, 8, 6, 5, 5, 0, true},
        {1, 500, 6, 1, 8, 4, 5, 5, 0, true},   {1, 769, 2, 1, 8, 4, 5, 5, 0, true},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        compare(way, shapes[i], false);
        compare(way, shapes[i], true);
    }
}

// Joint and split latents, widths that are no whole vectors, all dims rotated and none.
static void test_widths_groups_and_batches(void **state)
{
    const TestingCompute *way = testing_compute(state);
    static const LatentDims shapes[] = {
        // B, T, H, K, E, rope, key_latent, value_latent, value_column
        {1, 40, 9, 3, 64, 8, 48, 48, 0},  {2, 33, 4, 4, 16, 4, 3, 3, 3},
        {3, 17, 2, 1, 32, 8, 16, 16, 16}, {1, 65, 3, 3, 10, 6, 7, 7, 0},
        {2, 20, 4, 2, 8, 8, 0, 6, 0},     {2, 20, 4, 2, 8, 8, 0, 6, 6},
        {1, 50, 5, 1, 12, 0, 17, 17, 17}, {2, 100, 8, 2, 24, 2, 33, 33, 0},
        {1, 70, 4, 2, 4, 2, 40, 40, 0},   {1, 33, 71, 1, 4, 2, 2, 2, 0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        compare(way, shapes[i], false);
        compare(way, shapes[i], true);
    }
}

// A narrow latent in a long sequence pays, a wide one or a short sequence does not.
static bool pays(ComputeType compute, LatentDims dims)
{
    return latent_attention_pays(&dims, compute);
}

static void test_pays_where_it_is_less_work(void **state)
{
    (void)state;
    for (int i = 0; i < N_COMPUTE_TYPES; i++) {
        const ComputeType compute = (ComputeType)i;
        assert_true(pays(compute, (LatentDims){1, 2048, 9, 3, 64, 8, 48, 48, 0}));
        assert_true(pays(compute, (LatentDims){1, 2048, 9, 3, 64, 8, 24, 24, 24}));
        assert_false(pays(compute, (LatentDims){1, 64, 9, 3, 64, 8, 48, 48, 0}));
        assert_false(pays(compute, (LatentDims){1, 4096, 32, 32, 128, 16, 512, 512, 0}));
    }
    // Products in bfloat16 pad 33 and 41 numbers to 64.
    assert_true(pays(COMPUTE_FLOAT32, (LatentDims){1, 300, 9, 3, 64, 8, 33, 33, 0}));
    assert_false(pays(COMPUTE_BFLOAT16, (LatentDims){1, 300, 9, 3, 64, 8, 33, 33, 0}));
}

static double weighted_output(void *context)
{
    const Data *d = context;
    const LatentDims *latent = &d->dims;
    float *qkv = ref_latent_expand(&d->got, latent);
    const AttentionDims dims = {latent->B, latent->T, latent->H, latent->K, latent->E};
    double *out = ref_doubles(d->n_out), *lse = ref_doubles(d->n_lse);
    exact_attention_forward(out, lse, qkv, &dims);
    double loss = ref_dot(out, d->d_out, d->n_out);
    free(out);
    free(lse);
    free(qkv);
    return loss;
}

static void test_oracle_against_central_differences(void **state)
{
    (void)state;
    static const LatentDims shapes[] = {{1, 5, 2, 1, 4, 2, 3, 3, 0}, {2, 4, 4, 2, 4, 2, 2, 2, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        Data d = make_data(testing_way(0), shapes[i], false);
        ref_attention_latent_backward(&d.expected, &d.dims);
        const struct {
            float *values, *gradient;
            int64_t count;
        } all[] = {{d.got.qkv.data, d.expected.d_qkv.data, d.n_rows},
                   {d.up_k, d.expected.d_up_k, d.n_up_k},
                   {d.up_v, d.expected.d_up_v, d.n_up_v}};
        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++) {
            // Keys and values are rounded to float: that limits the difference of two losses.
            double error = ref_gradient_error(weighted_output, &d, all[j].values, all[j].gradient,
                                              all[j].count, 0x1p-7f);
            ref_assert_error("error", error, 2e-4); // seen 7.5e-5
        }
        release_data(&d);
    }
}

int main(void)
{
    static const struct CMUnitTest every_way[] = {
        cmocka_unit_test(test_lengths_around_the_tiles),
        cmocka_unit_test(test_widths_groups_and_batches),
        cmocka_unit_test(test_shared_keys),
    };
    enum { N = sizeof every_way / sizeof every_way[0] };
    struct CMUnitTest tests[N_TESTING_WAYS * N + 2];
    for (int i = 0; i < N_TESTING_WAYS * N; i++) {
        tests[i] = every_way[i % N];
        tests[i].initial_state = testing_way(i / N);
    }
    tests[N_TESTING_WAYS * N] =
        (struct CMUnitTest)cmocka_unit_test(test_pays_where_it_is_less_work);
    tests[N_TESTING_WAYS * N + 1] =
        (struct CMUnitTest)cmocka_unit_test(test_oracle_against_central_differences);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
