// Attention on expanded keys and values: tiles against the whole T x T softmax, extreme scores, and
// the oracle against central differences.
#include "tests/support/testing.h"

#include "model/attention/attention.h"
#include "tests/reference/ref.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct Data {
    AttentionDims dims;
    int64_t n_qkv, n_out, n_lse; // floats
    float *qkv, *d_out;          // inputs
    float *out, *lse, *d_qkv, *expected_out, *expected_lse, *expected_d_qkv;
    float *scratch;
} Data;

static Data make_data(int B, int T, int K, int G, int E, double scale)
{
    Data d = {.dims = {B, T, K * G, K, E}};
    int64_t N = (int64_t)B * T;
    d.n_qkv = N * attention_row(&d.dims);
    d.n_out = N * K * G * E;
    d.n_lse = N * K * G;
    d.qkv = ref_random(d.n_qkv, scale, 1);
    d.d_out = ref_random(d.n_out, 1.0, 2);
    d.out = ref_nans(d.n_out);
    d.lse = ref_nans(d.n_lse);
    d.d_qkv = ref_nans(d.n_qkv);
    d.expected_out = ref_nans(d.n_out);
    d.expected_lse = ref_nans(d.n_lse);
    d.expected_d_qkv = ref_nans(d.n_qkv);
    // One block per call of exactly the stated size, so that the sanitizer sees an overrun.
    d.scratch =
        ref_nans(attention_scratch_bytes(&d.dims, COMPUTE_FLOAT32, omp_get_max_threads(), true) /
                 (int64_t)sizeof(float));
    return d;
}

static void release_data(Data *d)
{
    float *all[] = {d->qkv,          d->d_out,          d->out,
                    d->lse,          d->d_qkv,          d->expected_out,
                    d->expected_lse, d->expected_d_qkv, d->scratch};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static void run_forward(Data *d)
{
    attention_forward(COMPUTE_FLOAT32, rows_f32(d->out, d->dims.H * d->dims.E), d->lse,
                      rows_f32(d->qkv, attention_row(&d->dims)), d->scratch, &d->dims);
}

static void run_fast(Data *d)
{
    const int row = attention_row(&d->dims), width = d->dims.H * d->dims.E;
    run_forward(d);
    attention_backward(COMPUTE_FLOAT32, rows_f32(d->d_qkv, row), rows_f32(d->d_out, width),
                       rows_f32(d->out, width), d->lse, rows_f32(d->qkv, row), d->scratch,
                       &d->dims);
}

static void run_reference(Data *d)
{
    ref_attention_forward(d->expected_out, d->expected_lse, d->qkv, NULL, &d->dims);
    ref_attention_backward(d->expected_d_qkv, d->d_out, NULL, NULL, d->qkv, NULL, &d->dims);
}

static void compare(int B, int T, int K, int G, int E)
{
    Data d = make_data(B, T, K, G, E, 1.0);
    run_fast(&d);
    run_reference(&d);
    testing_assert_close("out", d.out, d.expected_out, d.n_out, 2e-6);       // seen 4.5e-7
    testing_assert_close("lse", d.lse, d.expected_lse, d.n_lse, 2e-6);       // seen 1.5e-7
    testing_assert_close("d_qkv", d.d_qkv, d.expected_d_qkv, d.n_qkv, 5e-6); // seen 1.4e-6
    release_data(&d);
}

// T around the tiles of 192 keys and of 16 to 96 queries, for groups whose tiles differ.
static void test_lengths_around_the_tiles(void **state)
{
    (void)state;
    const int lengths[] = {1, 2, 7, 31, 32, 33, 95, 96, 97, 191, 192, 193, 300};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        compare(1, lengths[i], 2, 1, 8);
        compare(1, lengths[i], 1, 3, 8);
    }
}

static void test_groups_widths_and_batches(void **state)
{
    (void)state;
    static const int shapes[][5] = {
        // B, T, K, G, E
        {1, 129, 1, 2, 32}, {2, 65, 3, 2, 2},   {3, 7, 4, 1, 64},   {1, 200, 1, 8, 8},
        {2, 63, 2, 8, 2},   {1, 129, 1, 16, 8}, {3, 17, 2, 16, 32}, {1, 65, 2, 3, 128},
        {2, 128, 4, 2, 8},  {1, 200, 2, 5, 6},  {1, 33, 1, 71, 4},  {1, 300, 1, 2, 2},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        compare(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], shapes[i][4]);
}

static void test_long_sequence(void **state)
{
    (void)state;
    compare(1, 700, 1, 2, 8);
}

static float *head_of(Data *d, int token, int head)
{
    return d->qkv + (int64_t)token * attention_row(&d->dims) + (int64_t)head * d->dims.E;
}

// Queries of one token are scaled so that its scores spread over +-1e4. A float of that size
// resolves 1e-3, so that is how well probabilities of near ties can be known.
static void test_scores_of_ten_thousand(void **state)
{
    (void)state;
    enum { T = 200, E = 8 };
    Data d = make_data(1, T, 1, 2, E, 1.0);
    for (int t = 0; t < T; t += 3)
        for (int e = 0; e < 2 * E; e++)
            head_of(&d, t, 0)[e] *= 5e3f;
    run_fast(&d);
    run_reference(&d);
    double largest = 0;
    for (int64_t i = 0; i < d.n_lse; i++)
        largest = fmax(largest, (double)fabsf(d.expected_lse[i]));
    assert_true(largest > 1e4);
    testing_assert_close("out", d.out, d.expected_out, d.n_out, 1e-5);       // seen 6.3e-8
    testing_assert_close("lse", d.lse, d.expected_lse, d.n_lse, 1e-6);       // seen 8.8e-8
    testing_assert_close("d_qkv", d.d_qkv, d.expected_d_qkv, d.n_qkv, 2e-3); // seen 6.4e-4
    release_data(&d);
}

// The largest score comes last, tile after tile: what was summed shrinks to nothing each time.
static void test_scores_that_rise_with_every_key(void **state)
{
    (void)state;
    enum { T = 300, E = 4 };
    Data d = make_data(1, T, 1, 1, E, 1.0);
    for (int t = 0; t < T; t++)
        for (int e = 0; e < E; e++) {
            head_of(&d, t, 0)[e] = e == 0 ? 2.0f : 0.0f;
            head_of(&d, t, 1)[e] = e == 0 ? (float)(t - T / 2) : 0.0f;
        }
    run_fast(&d);
    run_reference(&d);
    testing_assert_close("out", d.out, d.expected_out, d.n_out, 1e-5);       // seen 1.5e-7
    testing_assert_close("d_qkv", d.d_qkv, d.expected_d_qkv, d.n_qkv, 5e-5); // seen 1.5e-5
    release_data(&d);
}

static void test_equal_scores_give_the_mean_of_the_values(void **state)
{
    (void)state;
    enum { T = 200, E = 8 };
    Data d = make_data(1, T, 1, 1, E, 1.0);
    for (int t = 0; t < T; t++)
        memset(head_of(&d, t, 0), 0, E * sizeof(float));
    run_fast(&d);
    double sum[E] = {0};
    for (int t = 0; t < T; t++) {
        for (int e = 0; e < E; e++) {
            sum[e] += (double)head_of(&d, t, 2)[e];
            ref_assert_error("mean", fabs((double)d.out[t * E + e] - sum[e] / (t + 1)),
                             1e-6); // seen 5.3e-8
        }
        ref_assert_error("lse", fabs((double)d.lse[t] - log(t + 1.0)), 1e-6); // seen 2.3e-7
    }
    release_data(&d);
}

static void test_one_key_passes_its_value(void **state)
{
    (void)state;
    enum { E = 64 };
    Data d = make_data(3, 1, 1, 1, E, 10.0);
    run_fast(&d);
    for (int b = 0; b < 3; b++)
        for (int e = 0; e < E; e++) {
            double value = (double)head_of(&d, b, 2)[e];
            assert_true(fabs((double)d.out[b * E + e] - value) <= 2e-7 * fabs(value));
        }
    run_reference(&d);
    // Queries and keys of a single key have no gradient; what rounding leaves is p - 1 of one row
    // whose scores are about 800.
    testing_assert_close("d_qkv", d.d_qkv, d.expected_d_qkv, d.n_qkv, 1e-4); // seen 1.4e-5
    release_data(&d);
}

static void test_nan_in_a_key_reaches_the_queries_that_see_it(void **state)
{
    (void)state;
    enum { T = 150, E = 4, BAD = 70 };
    Data d = make_data(1, T, 1, 1, E, 1.0);
    head_of(&d, BAD, 1)[0] = NAN;
    run_forward(&d);
    for (int t = 0; t < T; t++) {
        assert_int_equal(isnan(d.out[t * E]) != 0, t >= BAD);
        assert_int_equal(isnan(d.lse[t]) != 0, t >= BAD);
    }
    release_data(&d);
}

static double weighted_output(void *context)
{
    const Data *d = context;
    double *out = ref_doubles(d->n_out), *lse = ref_doubles(d->n_lse);
    exact_attention_forward(out, lse, d->qkv, &d->dims);
    double loss = ref_dot(out, d->d_out, d->n_out);
    free(out);
    free(lse);
    return loss;
}

static void test_oracle_against_central_differences(void **state)
{
    (void)state;
    static const int shapes[][5] = {{1, 5, 1, 1, 4}, {2, 4, 2, 2, 2}, {1, 6, 1, 3, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const int *s = shapes[i];
        Data d = make_data(s[0], s[1], s[2], s[3], s[4], 1.0);
        run_reference(&d);
        double error =
            ref_gradient_error(weighted_output, &d, d.qkv, d.expected_d_qkv, d.n_qkv, 0x1p-10f);
        ref_assert_error("error", error, 2e-6); // seen 1.0e-7
        release_data(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths_around_the_tiles),
        cmocka_unit_test(test_groups_widths_and_batches),
        cmocka_unit_test(test_long_sequence),
        cmocka_unit_test(test_scores_of_ten_thousand),
        cmocka_unit_test(test_scores_that_rise_with_every_key),
        cmocka_unit_test(test_equal_scores_give_the_mean_of_the_values),
        cmocka_unit_test(test_one_key_passes_its_value),
        cmocka_unit_test(test_nan_in_a_key_reaches_the_queries_that_see_it),
        cmocka_unit_test(test_oracle_against_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
