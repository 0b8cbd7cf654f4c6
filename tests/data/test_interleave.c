// data/interleave: shares at every point, purity, errors.
#include "tests/support/testing.h"

#include "base/random.h"
#include "data/interleave.h"

#include <math.h>

// The largest |count - share * i| over all sources and all i up to n_samples.
static double worst_share_error(const double *weights, int n, int64_t n_samples)
{
    int64_t counts[32] = {0};
    double sum = 0, worst = 0;
    for (int s = 0; s < n; s++)
        sum += weights[s];
    Interleave *schedule;
    assert_ok(interleave_create(&schedule, weights, n));
    for (int64_t i = 0; i < n_samples; i++) {
        int64_t nth;
        int source = interleave_at(schedule, i, &nth);
        assert_int_equal(nth, counts[source]);
        counts[source]++;
        for (int s = 0; s < n; s++)
            worst = fmax(worst, fabs((double)counts[s] - weights[s] / sum * (double)(i + 1)));
    }
    interleave_destroy(schedule);
    return worst;
}

static void test_shares_are_within_one_sample_at_every_point(void **state)
{
    (void)state;
    const double paper[] = {0.70, 0.15, 0.08, 0.06, 0.01};
    const double equal[] = {1, 1, 1, 1, 1, 1, 1};
    const double one[] = {3};
    const double steep[] = {1e6, 1, 1, 1e-3};
    double many[20];
    for (int i = 0; i < 20; i++)
        many[i] = (double)(random_bits(5, (uint64_t)i) >> 11);
    const double observed[] = {worst_share_error(paper, 5, 1000000),
                               worst_share_error(equal, 7, 100000), worst_share_error(one, 1, 1000),
                               worst_share_error(steep, 4, 100000),
                               worst_share_error(many, 20, 100000)};
    // The theorem's bound is 1 - 1/(2k-2); seen 0.86, 0.857, 0, 0.2001, 0.97368.
    assert_true(observed[0] <= 1 - 1.0 / 8 + 1e-6);
    assert_true(observed[1] <= 1 - 1.0 / 12 + 1e-6);
    assert_true(observed[2] == 0);
    assert_true(observed[3] <= 1 - 1.0 / 6 + 1e-6);
    assert_true(observed[4] <= 1 - 1.0 / 38 + 1e-6);
}

static void test_many_random_weight_sets_keep_their_shares(void **state)
{
    (void)state;
    double worst = -1;
    for (uint64_t set = 0; set < 100; set++) {
        double weights[12];
        int n = 2 + (int)(set % 11);
        for (int i = 0; i < n; i++)
            weights[i] = pow(10, -3.0 * (double)(random_bits(set, (uint64_t)i) >> 11) * 0x1p-53);
        worst = fmax(worst, worst_share_error(weights, n, 3000) - (1 - 1.0 / (2 * n - 2)));
    }
    assert_true(worst <= 1e-6); // seen -2.6e-6
}

static void test_answers_do_not_depend_on_the_order_of_questions(void **state)
{
    (void)state;
    enum { N = 200000 };
    const double weights[] = {0.70, 0.15, 0.08, 0.06, 0.01};
    static int sources[N];
    static int64_t counts[N];
    Interleave *schedule;
    assert_ok(interleave_create(&schedule, weights, 5));
    for (int i = 0; i < N; i++)
        sources[i] = interleave_at(schedule, i, &counts[i]);
    for (uint64_t q = 0; q < 60; q++) {
        int64_t index = (int64_t)(random_bits(9, q) % N), nth;
        assert_int_equal(interleave_at(schedule, index, &nth), sources[index]);
        assert_int_equal(nth, counts[index]);
    }
    interleave_destroy(schedule);
}

static void test_counts_are_those_of_a_walk(void **state)
{
    (void)state;
    enum { N = 5000 };
    const double weights[] = {0.70, 0.15, 0.08, 0.06, 0.01};
    int64_t counts[5] = {0}, nth;
    Interleave *schedule, *walk;
    assert_ok(interleave_create(&schedule, weights, 5));
    assert_ok(interleave_create(&walk, weights, 5));
    for (int i = 0; i <= N; i++) {
        // Every other question is far back, so that the walk starts anew.
        const int source = i % 5;
        assert_int_equal(interleave_count(schedule, i, source), counts[source]);
        assert_int_equal(interleave_count(schedule, 0, source), 0);
        counts[interleave_at(walk, i, &nth)]++;
    }
    interleave_destroy(schedule);
    interleave_destroy(walk);
}

static void test_bad_weights_are_refused(void **state)
{
    (void)state;
    Interleave *schedule;
    const double zero[] = {1, 0}, negative[] = {-1}, nan[] = {NAN}, tiny[] = {1, 1e-13, 1};
    const double huge[] = {1e308, 1e308};
    assert_fails(BAD_INPUT, "source 1 has weight 0", interleave_create(&schedule, zero, 2));
    assert_fails(BAD_INPUT, "source 0 has weight -1", interleave_create(&schedule, negative, 1));
    assert_fails(BAD_INPUT, "source 0 has weight nan", interleave_create(&schedule, nan, 1));
    assert_fails(BAD_INPUT, "too small a share", interleave_create(&schedule, tiny, 3));
    assert_fails(BAD_INPUT, "too small a share", interleave_create(&schedule, huge, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares_are_within_one_sample_at_every_point),
        cmocka_unit_test(test_many_random_weight_sets_keep_their_shares),
        cmocka_unit_test(test_answers_do_not_depend_on_the_order_of_questions),
        cmocka_unit_test(test_counts_are_those_of_a_walk),
        cmocka_unit_test(test_bad_weights_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
