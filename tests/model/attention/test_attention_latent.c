// Attention in the latent space against keys and values expanded, and the oracle against central
// differences.
#include "tests/support/testing.h"

#include "model/attention/attention_latent.h"
#include "tests/reference/ref.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct Data {
    LatentDims dims;
    int64_t n_rows, n_out, n_values, n_lse, n_up_k, n_up_v;
    float *qkv, *up_k, *up_v, *d_out;
    LatentArrays got, expected;
    float *scratch;
} Data;

static LatentArrays make_arrays(const Data *d, bool add)
{
    // What is added to is the same for both, what is written starts as NaN.
    return (LatentArrays){
        .qkv = rows_f32(d->qkv, latent_columns(&d->dims).row),
        .up_k = d->up_k,
        .up_v = d->up_v,
        .out = rows_f32(ref_nans(d->n_out), d->dims.H * d->dims.E),
        .values = rows_f32(ref_nans(d->n_values), d->dims.H * d->dims.value_latent),
        .lse = ref_nans(d->n_lse),
        .d_out = rows_f32(d->d_out, d->dims.H * d->dims.E),
        .d_qkv = rows_f32(ref_nans(d->n_rows), latent_columns(&d->dims).row),
        .d_up_k = add ? ref_random(d->n_up_k, 1.0, 5) : ref_nans(d->n_up_k),
        .d_up_v = add ? ref_random(d->n_up_v, 1.0, 6) : ref_nans(d->n_up_v),
        .add_gradients = add,
    };
}

static Data make_data(LatentDims dims, bool add)
{
    Data d = {.dims = dims};
    const int64_t N = (int64_t)dims.B * dims.T;
    d.n_rows = N * latent_columns(&dims).row;
    d.n_out = N * dims.H * dims.E;
    d.n_values = N * dims.H * dims.value_latent;
    d.n_lse = N * dims.H;
    d.n_up_k = (int64_t)dims.K * (dims.E - dims.rope) * dims.key_latent;
    d.n_up_v = (int64_t)dims.K * dims.E * dims.value_latent;
    d.qkv = ref_random(d.n_rows, 1.0, 1);
    d.up_k = ref_random(d.n_up_k, 0.5, 2);
    d.up_v = ref_random(d.n_up_v, 0.5, 3);
    d.d_out = ref_random(d.n_out, 1.0, 4);
    d.got = make_arrays(&d, add);
    d.expected = make_arrays(&d, add);
    d.scratch = ref_nans(
        attention_latent_scratch_bytes(&dims, COMPUTE_FLOAT32, omp_get_max_threads(), true) /
        (int64_t)sizeof(float));
    return d;
}

static void release_arrays(LatentArrays *a)
{
    void *all[] = {a->out.data, a->values.data, a->lse, a->d_qkv.data, a->d_up_k, a->d_up_v};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static void release_data(Data *d)
{
    release_arrays(&d->got);
    release_arrays(&d->expected);
    float *all[] = {d->qkv, d->up_k, d->up_v, d->d_out, d->scratch};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

// Backward begins without forward's output: it must make it again from the saved values.
static void run_fast(Data *d)
{
    attention_latent_forward(COMPUTE_FLOAT32, &d->got, d->scratch, &d->dims);
    testing_assert_close("out", d->got.out.data, d->expected.out.data, d->n_out,
                         3e-6); // seen 7.4e-7
    for (int64_t i = 0; i < d->n_out; i++)
        ((float *)d->got.out.data)[i] = 0;
    attention_latent_backward(COMPUTE_FLOAT32, &d->got, d->scratch, &d->dims);
}

static void compare(LatentDims dims, bool add)
{
    Data d = make_data(dims, add);
    ref_attention_latent_forward(&d.expected, &dims);
    ref_attention_latent_backward(&d.expected, &dims);
    run_fast(&d);
    const LatentArrays *got = &d.got, *expected = &d.expected;
    testing_assert_close("out again", got->out.data, expected->out.data, d.n_out,
                         3e-6);                                          // seen 7.4e-7
    testing_assert_close("lse", got->lse, expected->lse, d.n_lse, 3e-6); // seen 2.2e-7
    testing_assert_close("d_qkv", got->d_qkv.data, expected->d_qkv.data, d.n_rows,
                         1e-5);                                                    // seen 8.2e-7
    testing_assert_close("d_up_k", got->d_up_k, expected->d_up_k, d.n_up_k, 1e-5); // seen 6.7e-7
    testing_assert_close("d_up_v", got->d_up_v, expected->d_up_v, d.n_up_v, 1e-5); // seen 3.8e-7
    release_data(&d);
}

// T around the tiles of 192 keys and of 16 to 96 queries.
static void test_lengths_around_the_tiles(void **state)
{
    (void)state;
    const int lengths[] = {1, 2, 31, 33, 95, 97, 191, 192, 193, 500};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        compare((LatentDims){1, lengths[i], 6, 2, 8, 2, 5, 5, 0}, i % 2 == 0);
}

// Joint and split latents, widths that are no whole vectors, all dims rotated and none.
static void test_widths_groups_and_batches(void **state)
{
    (void)state;
    static const LatentDims shapes[] = {
        // B, T, H, K, E, rope, key_latent, value_latent, value_column
        {1, 40, 9, 3, 64, 8, 48, 48, 0},  {2, 33, 4, 4, 16, 4, 3, 3, 3},
        {3, 17, 2, 1, 32, 8, 16, 16, 16}, {1, 65, 3, 3, 10, 6, 7, 7, 0},
        {2, 20, 4, 2, 8, 8, 0, 6, 0},     {2, 20, 4, 2, 8, 8, 0, 6, 6},
        {1, 50, 5, 1, 12, 0, 17, 17, 17}, {2, 100, 8, 2, 24, 2, 33, 33, 0},
        {1, 70, 4, 2, 4, 2, 40, 40, 0},   {1, 33, 71, 1, 4, 2, 2, 2, 0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        compare(shapes[i], false);
        compare(shapes[i], true);
    }
}

// A narrow latent in a long sequence pays, a wide one or a short sequence does not.
static void test_pays_where_it_is_less_work(void **state)
{
    (void)state;
    assert_true(latent_attention_pays(&(LatentDims){1, 2048, 9, 3, 64, 8, 48, 48, 0}));
    assert_true(latent_attention_pays(&(LatentDims){1, 2048, 9, 3, 64, 8, 24, 24, 24}));
    assert_false(latent_attention_pays(&(LatentDims){1, 64, 9, 3, 64, 8, 48, 48, 0}));
    assert_false(latent_attention_pays(&(LatentDims){1, 4096, 32, 32, 128, 16, 512, 512, 0}));
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
        Data d = make_data(shapes[i], false);
        ref_attention_latent_backward(&d.expected, &d.dims);
        const struct {
            float *values, *gradient;
            int64_t count;
        } all[] = {{d.qkv, d.expected.d_qkv.data, d.n_rows},
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths_around_the_tiles),
        cmocka_unit_test(test_widths_groups_and_batches),
        cmocka_unit_test(test_pays_where_it_is_less_work),
        cmocka_unit_test(test_oracle_against_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
