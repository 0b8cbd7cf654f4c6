// Attention on expanded keys and values, in every way that products compute: tiles against the
// whole T x T softmax, extreme scores, what later tokens must not change, and the oracle against
// central differences.
#include "tests/support/testing.h"
#include "tests/support/testing_compute.h"

#include "model/attention/attention.h"
#include "tests/reference/ref.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct Data {
    const TestingCompute *way;
    AttentionDims dims;
    int64_t N;
    int row, width;              // of qkv and of out
    int64_t n_qkv, n_out, n_lse; // floats
    float *qkv, *d_out;          // inputs: the oracle's
    Rows qkv_rows, d_out_rows, out, d_qkv;
    float *lse, *expected_out, *expected_lse, *expected_d_qkv;
    void *scratch;
} Data;

static Data make_data(const TestingCompute *way, int B, int T, int K, int G, int E, double scale)
{
    Data d = {.way = way, .dims = {B, T, K * G, K, E}, .N = (int64_t)B * T, .width = K * G * E};
    d.row = attention_row(&d.dims);
    d.n_qkv = d.N * d.row;
    d.n_out = d.N * d.width;
    d.n_lse = d.N * K * G;
    d.qkv = ref_random(d.n_qkv, scale, 1);
    d.d_out = ref_random(d.n_out, 1.0, 2);
    testing_round(way, d.d_out, d.n_out);
    d.out = testing_rows(way, NULL, d.N, d.width);
    d.d_qkv = testing_rows(way, NULL, d.N, d.row);
    d.lse = ref_nans(d.n_lse);
    d.expected_out = ref_nans(d.n_out);
    d.expected_lse = ref_nans(d.n_lse);
    d.expected_d_qkv = ref_nans(d.n_qkv);
    return d;
}

static void release_data(Data *d)
{
    void *all[] = {d->qkv,          d->d_out,         d->qkv_rows.data, d->d_out_rows.data,
                   d->out.data,     d->d_qkv.data,    d->lse,           d->expected_out,
                   d->expected_lse, d->expected_d_qkv};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

// One block per call of exactly the stated size, so that the sanitizer sees an overrun. All ones
// are NaNs, of floats and of halves.
static void *make_scratch(const Data *d, bool is_training)
{
    const int64_t bytes =
        attention_scratch_bytes(&d->dims, d->way->compute, omp_get_max_threads(), is_training);
    void *scratch = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
    assert_non_null(scratch);
    memset(scratch, 0xff, (size_t)bytes);
    return scratch;
}

static void run_forward(Data *d)
{
    void *scratch = make_scratch(d, false);
    free(d->qkv_rows.data);
    testing_round(d->way, d->qkv, d->n_qkv); // tests have changed it
    d->qkv_rows = testing_rows(d->way, d->qkv, d->N, d->row);
    attention_forward(d->way->compute, d->out, d->lse, d->qkv_rows, scratch, &d->dims);
    free(scratch);
}

static void run_fast(Data *d)
{
    run_forward(d);
    void *scratch = make_scratch(d, true);
    free(d->d_out_rows.data);
    d->d_out_rows = testing_rows(d->way, d->d_out, d->N, d->width);
    attention_backward(d->way->compute, d->d_qkv, d->d_out_rows, d->out, d->lse, d->qkv_rows,
                       scratch, &d->dims);
    free(scratch);
}

static void run_reference(Data *d)
{
    ref_attention_forward(d->expected_out, d->expected_lse, d->qkv, NULL, &d->dims);
    ref_attention_backward(d->expected_d_qkv, d->d_out, NULL, NULL, d->qkv, NULL, &d->dims);
}

static void assert_out(const Data *d, double float32, double bfloat16)
{
    testing_assert_rows(d->way, "out", d->out, d->expected_out, d->N, d->width, float32, bfloat16);
}

static void assert_lse(const Data *d, double float32, double bfloat16)
{
    testing_assert_floats(d->way, "lse", d->lse, d->expected_lse, d->n_lse, float32, bfloat16);
}

static void assert_d_qkv(const Data *d, double float32, double bfloat16)
{
    testing_assert_rows(d->way, "d_qkv", d->d_qkv, d->expected_d_qkv, d->N, d->row, float32,
                        bfloat16);
}

static void compare(const TestingCompute *way, int B, int T, int K, int G, int E)
{
    Data d = make_data(way, B, T, K, G, E, 1.0);
    run_fast(&d);
    run_reference(&d);
    assert_out(&d, 2e-6, 8e-3);   // seen 4.5e-7, 3.3e-3
    assert_lse(&d, 2e-6, 2e-6);   // seen 1.5e-7, 5.2e-7
    assert_d_qkv(&d, 5e-6, 1e-2); // seen 1.4e-6, 4.3e-3
    release_data(&d);
}

// T around the tiles of 192 keys in float32, 768 in bfloat16, and of 16 to 96 queries, for groups
// whose tiles differ.
static void test_lengths_around_the_tiles(void **state)
{
    const TestingCompute *way = testing_compute(state);
    const int lengths[] = {1, 2, 7, 31, 32, 33, 95, 96, 97, 191, 192, 193, 300, 769};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        compare(way, 1, lengths[i], 2, 1, 8);
        compare(way, 1, lengths[i], 1, 3, 8);
    }
}

static void test_groups_widths_and_batches(void **state)
{
    const TestingCompute *way = testing_compute(state);
    static const int shapes[][5] = {
        // B, T, K, G, E
        {1, 129, 1, 2, 32}, {2, 65, 3, 2, 2},   {3, 7, 4, 1, 64},   {1, 200, 1, 8, 8},
        {2, 63, 2, 8, 2},   {1, 129, 1, 16, 8}, {3, 17, 2, 16, 32}, {1, 65, 2, 3, 128},
        {2, 128, 4, 2, 8},  {1, 200, 2, 5, 6},  {1, 33, 1, 71, 4},  {1, 300, 1, 2, 2},
        {1, 800, 12, 1, 2},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        compare(way, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], shapes[i][4]);
}

static void test_long_sequence(void **state)
{
    const TestingCompute *way = testing_compute(state);
    compare(way, 1, 900, 1, 2, 8);
    compare(way, 1, 800, 1, 1, 64);
}

static float *head_of(Data *d, int token, int head)
{
    return d->qkv + (int64_t)token * attention_row(&d->dims) + (int64_t)head * d->dims.E;
}

// Queries of one token are scaled so that its scores spread over +-1e4. A float of that size
// resolves 1e-3, so that is how well probabilities of near ties can be known.
static void test_scores_of_ten_thousand(void **state)
{
    const TestingCompute *way = testing_compute(state);
    enum { T = 200, E = 8 };
    Data d = make_data(way, 1, T, 1, 2, E, 1.0);
    for (int t = 0; t < T; t += 3)
        for (int e = 0; e < 2 * E; e++)
            head_of(&d, t, 0)[e] *= 5e3f;
    run_fast(&d);
    run_reference(&d);
    double largest = 0;
    for (int64_t i = 0; i < d.n_lse; i++)
        largest = fmax(largest, (double)fabsf(d.expected_lse[i]));
    assert_true(largest > 1e4);
    assert_out(&d, 1e-5, 4e-3);   // seen 6.3e-8, 1.0e-3
    assert_lse(&d, 1e-6, 1e-6);   // seen 8.8e-8, 8.8e-8
    assert_d_qkv(&d, 2e-3, 6e-3); // seen 6.4e-4, 1.6e-3
    release_data(&d);
}

// The largest score comes last, tile after tile: what was summed shrinks to nothing each time. A
// query's gradient is a difference of keys near 150 whose factors have been rounded to bfloat16.
static void test_scores_that_rise_with_every_key(void **state)
{
    const TestingCompute *way = testing_compute(state);
    enum { T = 300, E = 4 };
    Data d = make_data(way, 1, T, 1, 1, E, 1.0);
    for (int t = 0; t < T; t++)
        for (int e = 0; e < E; e++) {
            head_of(&d, t, 0)[e] = e == 0 ? 2.0f : 0.0f;
            head_of(&d, t, 1)[e] = e == 0 ? (float)(t - T / 2) : 0.0f;
        }
    run_fast(&d);
    run_reference(&d);
    assert_out(&d, 1e-5, 8e-3);  // seen 1.5e-7
    assert_d_qkv(&d, 5e-5, 0.4); // seen 1.5e-5
    release_data(&d);
}

static void test_equal_scores_give_the_mean_of_the_values(void **state)
{
    const TestingCompute *way = testing_compute(state);
    enum { T = 200, E = 8 };
    Data d = make_data(way, 1, T, 1, 1, E, 1.0);
    for (int t = 0; t < T; t++)
        memset(head_of(&d, t, 0), 0, E * sizeof(float));
    run_fast(&d);
    double sum[E] = {0};
    for (int t = 0; t < T; t++) {
        for (int e = 0; e < E; e++) {
            sum[e] += (double)head_of(&d, t, 2)[e];
            d.expected_out[t * E + e] = (float)(sum[e] / (t + 1));
        }
        d.expected_lse[t] = logf((float)t + 1);
    }
    assert_out(&d, 1e-6, 4e-3); // seen 5.3e-8, 1.2e-3
    assert_lse(&d, 1e-6, 1e-6); // seen 2.3e-7, 0
    release_data(&d);
}

static void test_one_key_passes_its_value(void **state)
{
    const TestingCompute *way = testing_compute(state);
    enum { E = 64 };
    Data d = make_data(way, 3, 1, 1, 1, E, 10.0);
    run_fast(&d);
    float *out = testing_rows_floats(d.out, d.N, d.width);
    for (int b = 0; b < 3; b++)
        for (int e = 0; e < E; e++) {
            double value = (double)head_of(&d, b, 2)[e];
            assert_true(fabs((double)out[b * E + e] - value) <= 2e-7 * fabs(value));
        }
    free(out);
    run_reference(&d);
    // Queries and keys of a single key have no gradient; what rounding leaves is p - 1 of one row
    // whose scores are about 800.
    assert_d_qkv(&d, 1e-4, 1e-4); // seen 1.4e-5, 0
    release_data(&d);
}

static void test_nan_in_a_key_reaches_the_queries_that_see_it(void **state)
{
    const TestingCompute *way = testing_compute(state);
    enum { T = 150, E = 4, BAD = 70 };
    Data d = make_data(way, 1, T, 1, 1, E, 1.0);
    head_of(&d, BAD, 1)[0] = NAN;
    run_forward(&d);
    float *out = testing_rows_floats(d.out, T, E);
    for (int t = 0; t < T; t++) {
        assert_int_equal(isnan(out[t * E]) != 0, t >= BAD);
        assert_int_equal(isnan(d.lse[t]) != 0, t >= BAD);
    }
    free(out);
    release_data(&d);
}

// Bits of out, lse and the queries' gradients of the tokens before the first change.
static void assert_same_until(Data *a, Data *b, int n_tokens)
{
    float *out[2] = {testing_rows_floats(a->out, a->N, a->width),
                     testing_rows_floats(b->out, b->N, b->width)};
    float *d_qkv[2] = {testing_rows_floats(a->d_qkv, a->N, a->row),
                       testing_rows_floats(b->d_qkv, b->N, b->row)};
    const size_t width = (size_t)a->width * sizeof(float);
    assert_memory_equal(out[0], out[1], (size_t)n_tokens * width);
    assert_memory_equal(a->lse, b->lse, (size_t)(n_tokens * a->dims.H) * sizeof(float));
    for (int t = 0; t < n_tokens; t++) // queries come first in a row and are as wide as out
        assert_memory_equal(d_qkv[0] + t * a->row, d_qkv[1] + t * b->row, width);
    for (int i = 0; i < 2; i++) {
        free(out[i]);
        free(d_qkv[i]);
    }
}

static void test_later_tokens_change_nothing(void **state)
{
    const TestingCompute *way = testing_compute(state);
    enum { T = 300, K = 2, G = 3, E = 8 };
    static const int first_changed[] = {1, 50, 97, 255, 256, 257, 299};
    for (size_t i = 0; i < sizeof first_changed / sizeof first_changed[0]; i++) {
        Data a = make_data(way, 1, T, K, G, E, 1.0), b = make_data(way, 1, T, K, G, E, 1.0);
        for (int64_t k = (int64_t)first_changed[i] * b.row; k < b.n_qkv; k++)
            b.qkv[k] *= -64.0f;
        run_fast(&a);
        run_fast(&b);
        assert_same_until(&a, &b, first_changed[i]);
        release_data(&a);
        release_data(&b);
    }
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
        Data d = make_data(testing_way(0), s[0], s[1], s[2], s[3], s[4], 1.0);
        run_reference(&d);
        double error =
            ref_gradient_error(weighted_output, &d, d.qkv, d.expected_d_qkv, d.n_qkv, 0x1p-10f);
        ref_assert_error("error", error, 2e-6); // seen 1.0e-7
        release_data(&d);
    }
}

int main(void)
{
    static const struct CMUnitTest every_way[] = {
        cmocka_unit_test(test_lengths_around_the_tiles),
        cmocka_unit_test(test_groups_widths_and_batches),
        cmocka_unit_test(test_long_sequence),
        cmocka_unit_test(test_scores_of_ten_thousand),
        cmocka_unit_test(test_scores_that_rise_with_every_key),
        cmocka_unit_test(test_equal_scores_give_the_mean_of_the_values),
        cmocka_unit_test(test_one_key_passes_its_value),
        cmocka_unit_test(test_nan_in_a_key_reaches_the_queries_that_see_it),
        cmocka_unit_test(test_later_tokens_change_nothing),
    };
    enum { N = sizeof every_way / sizeof every_way[0] };
    struct CMUnitTest tests[N_TESTING_WAYS * N + 1];
    for (int i = 0; i < N_TESTING_WAYS * N; i++) {
        tests[i] = every_way[i % N];
        tests[i].initial_state = testing_way(i / N);
    }
    tests[N_TESTING_WAYS * N] =
        (struct CMUnitTest)cmocka_unit_test(test_oracle_against_central_differences);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
