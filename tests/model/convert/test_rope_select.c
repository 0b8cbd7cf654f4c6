// Which RoPE pairs are kept: the strategies by hand-computed cases.
#include "tests/support/testing.h"

#include "model/convert/rope_select.h"

#include <math.h>
#include <string.h>

// Two layers, four query heads on two KV heads, four pairs a head.
static ModelShape small_shape(void)
{
    return (ModelShape){.n_layers = 2,
                        .d_model = 16,
                        .n_heads = 4,
                        .n_kv_heads = 2,
                        .head_dim = 8,
                        .d_ffn = 8,
                        .vocab_size = 10,
                        .max_positions = 16,
                        .rope_pairs = 4};
}

static ModelShape heads_of_width(int head_dim)
{
    ModelShape shape = small_shape();
    shape.head_dim = head_dim;
    return shape;
}

// Selects and compares every row of every layer with `expected`.
static void assert_pairs(RopeStrategy strategy, int head_dim, int P, const int32_t *expected)
{
    ModelShape shape = heads_of_width(head_dim);
    int32_t pairs[2 * 2 * 64];
    assert_ok(rope_select(pairs, &shape, P, strategy, NULL));
    for (int row = 0; row < 4; row++)
        assert_memory_equal(pairs + row * P, expected, (size_t)P * sizeof *expected);
}

static void test_high_keeps_the_fastest(void **state)
{
    (void)state;
    assert_pairs(ROPE_HIGH, 64, 4, (int32_t[]){0, 1, 2, 3});
    assert_pairs(ROPE_HIGH, 8, 4, (int32_t[]){0, 1, 2, 3});
}

static void test_low_keeps_the_slowest(void **state)
{
    (void)state;
    assert_pairs(ROPE_LOW, 64, 4, (int32_t[]){28, 29, 30, 31});
    assert_pairs(ROPE_LOW, 8, 1, (int32_t[]){3});
}

static void test_uniform_spreads_rounded_down(void **state)
{
    (void)state;
    assert_pairs(ROPE_UNIFORM, 64, 4, (int32_t[]){0, 8, 16, 24});
    assert_pairs(ROPE_UNIFORM, 128, 8, (int32_t[]){0, 8, 16, 24, 32, 40, 48, 56});
    assert_pairs(ROPE_UNIFORM, 64, 5, (int32_t[]){0, 6, 12, 19, 25}); // 32 k / 5
    assert_pairs(ROPE_UNIFORM, 8, 3, (int32_t[]){0, 1, 2});
}

static void test_pairs_out_of_range_are_refused(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    int32_t pairs[2 * 2 * 5];
    assert_fails(BAD_INPUT, "rope_pairs is 0, allowed are 1 to 4",
                 rope_select(pairs, &shape, 0, ROPE_HIGH, NULL));
    assert_fails(BAD_INPUT, "rope_pairs is 5, allowed are 1 to 4",
                 rope_select(pairs, &shape, 5, ROPE_LOW, NULL));
}

// Scores of one token: all zero but KV head 1 of layer 1, whose query heads are 2 and 3.
static RopeScores hand_scores(const ModelShape *shape)
{
    static const double q2[] = {1, 0, 3, 5}, q3[] = {1, 8, 1, 1}, k1[] = {9, 2, 4, 3};
    RopeScores scores;
    assert_ok(rope_scores_create(&scores, shape));
    *scores.n_tokens = 1;
    memcpy(scores.q_norm + (4 + 2) * 4, q2, sizeof q2);
    memcpy(scores.q_norm + (4 + 3) * 4, q3, sizeof q3);
    memcpy(scores.k_norm + (2 + 1) * 4, k1, sizeof k1);
    return scores;
}

static void test_2norm_sums_products_over_the_group(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    RopeScores scores = hand_scores(&shape);
    // (q2 + q3) k1 = 18, 16, 16, 18; the other heads are ties of zeros.
    static const int32_t zeros[] = {0, 1, 2}, expected_1[] = {0}, expected_3[] = {0, 1, 3};
    int32_t pairs[2 * 2 * 3];
    assert_ok(rope_select(pairs, &shape, 3, ROPE_2NORM, &scores));
    for (int row = 0; row < 3; row++)
        assert_memory_equal(pairs + row * 3, zeros, sizeof zeros);
    assert_memory_equal(pairs + 9, expected_3, sizeof expected_3);
    assert_ok(rope_select(pairs, &shape, 1, ROPE_2NORM, &scores));
    assert_memory_equal(pairs + 3, expected_1, sizeof expected_1);
    rope_scores_release(&scores);
}

// 18, 16, 16, 24: pair 3 wins. By norms added (11, 10, 8, 11) it would be pair 0.
static void test_2norm_multiplies_queries_by_keys(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    RopeScores scores = hand_scores(&shape);
    scores.q_norm[(4 + 2) * 4 + 3] = 7;
    int32_t pairs[2 * 2];
    assert_ok(rope_select(pairs, &shape, 1, ROPE_2NORM, &scores));
    assert_int_equal(pairs[3], 3);
    rope_scores_release(&scores);
}

static void test_2norm_of_all_pairs_keeps_all(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    RopeScores scores = hand_scores(&shape);
    int32_t pairs[2 * 2 * 4];
    assert_ok(rope_select(pairs, &shape, 4, ROPE_2NORM, &scores));
    for (int i = 0; i < 16; i++)
        assert_int_equal(pairs[i], i % 4);
    rope_scores_release(&scores);
}

static void test_2norm_refuses_scores_that_say_nothing(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    RopeScores scores = hand_scores(&shape);
    int32_t pairs[2 * 2];
    assert_fails(BAD_INPUT, "2-norm needs RoPE scores",
                 rope_select(pairs, &shape, 1, ROPE_2NORM, NULL));
    static const double bad_norms[] = {NAN, INFINITY, -1, 1e200};
    for (int i = 0; i < 4; i++) {
        scores.k_norm[5] = bad_norms[i];
        assert_fails(BAD_INPUT, "RoPE score 37 is",
                     rope_select(pairs, &shape, 1, ROPE_2NORM, &scores));
    }
    scores.k_norm[5] = 0;
    static const double bad_counts[] = {0, -3, NAN, INFINITY};
    for (int i = 0; i < 4; i++) {
        *scores.n_tokens = bad_counts[i];
        assert_fails(BAD_INPUT, "RoPE scores are of",
                     rope_select(pairs, &shape, 1, ROPE_2NORM, &scores));
    }
    rope_scores_release(&scores);
}

static void test_strategies_have_names(void **state)
{
    (void)state;
    for (int i = ROPE_HIGH; i <= ROPE_2NORM; i++) {
        RopeStrategy strategy;
        assert_ok(rope_strategy_parse(&strategy, rope_strategy_name((RopeStrategy)i)));
        assert_int_equal(strategy, i);
    }
    RopeStrategy strategy;
    assert_fails(BAD_INPUT, "'2norm', allowed are high, low, uniform, 2-norm, kl and",
                 rope_strategy_parse(&strategy, "2norm"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_high_keeps_the_fastest),
        cmocka_unit_test(test_low_keeps_the_slowest),
        cmocka_unit_test(test_uniform_spreads_rounded_down),
        cmocka_unit_test(test_pairs_out_of_range_are_refused),
        cmocka_unit_test(test_2norm_sums_products_over_the_group),
        cmocka_unit_test(test_2norm_multiplies_queries_by_keys),
        cmocka_unit_test(test_2norm_of_all_pairs_keeps_all),
        cmocka_unit_test(test_2norm_refuses_scores_that_say_nothing),
        cmocka_unit_test(test_strategies_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
