// The time model against sums made by hand, for a shape small enough to count.
#include "tests/support/testing.h"

#include "base/log.h"
#include "train/plan/cost.h"

#include <math.h>

// 1160 parameters in four buckets (tests/train/plan/test_plan.c counts them); shares are blocks of
// 1024, so that rank 0 owns all.
static const ModelShape small = {.n_layers = 2,
                                 .d_model = 8,
                                 .n_heads = 2,
                                 .n_kv_heads = 1,
                                 .head_dim = 4,
                                 .d_ffn = 12,
                                 .vocab_size = 20,
                                 .max_positions = 16,
                                 .rope_pairs = 2,
                                 .tied_head = true,
                                 .rope_theta = 10000,
                                 .rms_eps = 1e-5};
// Powers of ten, so that each term of a sum shows in digits of its own.
static const Rates rates = {
    .product_flops = 1e9, .memory_bytes = 1e6, .network_bytes = 1e3, .latency_s = 7};

static Config small_config(void)
{
    return (Config){
        .model.init = {.given = true, .shape = small},
        .data.seq_len = 5,
        .train = {.steps = 10, .global_batch = 12, .micro_batch = 2, .sum_groups = 6},
    };
}

static Cost cost_on(const Config *config, int n_ranks)
{
    Plan plan;
    Cost cost;
    assert_ok(plan_make(&plan, config, n_ranks, 1));
    assert_ok(cost_make(&cost, &plan, config, &rates, 0.5));
    return cost;
}

static void assert_near(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-9 * fabs(expected))) // seen 2e-16
        fail_msg("%.17g, expected %.17g", value, expected);
}

static void test_products_of_the_fullest_rank(void **state)
{
    (void)state;
    const Config config = small_config();
    const double sequence = shape_train_flops(&small, 5);
    assert_near(cost_on(&config, 1).step_flops, 12 * sequence);
    assert_near(cost_on(&config, 1).products_s, 12 * sequence / 0.5e9);
    assert_near(cost_on(&config, 3).products_s, 4 * sequence / 0.5e9); // two rounds of one group
    assert_near(cost_on(&config, 4).products_s, 4 * sequence / 0.5e9); // the second of two ranks
    assert_near(cost_on(&config, 6).products_s, 2 * sequence / 0.5e9);
}

static void test_messages_of_rounds_and_the_gather(void **state)
{
    (void)state;
    Config config = small_config();
    assert_true(cost_on(&config, 1).messages_s == 0);
    // Three rounds and the gather; half of 4640 bytes and one message per bucket each.
    assert_near(cost_on(&config, 2).messages_s, 4 * (2320 / 1e3 + 4 * 7));
    config.train.sum_groups = 2;
    assert_near(cost_on(&config, 2).messages_s, 2 * (2320 / 1e3 + 4 * 7));
    config.train.sum_groups = 6;
    assert_near(cost_on(&config, 6).messages_s, 2 * (4640.0 * 5 / 6 / 1e3 + 4 * 5 * 7));
}

// Copies of the parameters exchange data only in the all-gather: a sixth each from one other copy,
// or nothing.
static void test_ranks_that_share_parameters_send_fewer(void **state)
{
    (void)state;
    const Config config = small_config();
    Plan plan;
    Cost cost;
    assert_ok(plan_make(&plan, &config, 6, 1));
    plan.n_sharers = 3;
    assert_ok(cost_make(&cost, &plan, &config, &rates, 0.5));
    const double reduce_s = 4640.0 * 5 / 6 / 1e3 + 4 * 5 * 7;
    assert_near(cost.messages_s, reduce_s + 4640.0 / 6 / 1e3 + 4 * 7);
    plan.n_sharers = 6;
    assert_ok(cost_make(&cost, &plan, &config, &rates, 0.5));
    assert_near(cost.messages_s, reduce_s);
}

// Two ranks. The embedding has 160 of the 1160 parameters, in one of the four buckets; the layers
// have 1000 in three. A rank sends half of each: 320 bytes in 1 message and 2000 bytes in 3
// messages, at 1 kB/s and 7 s per message; half the bytes in bfloat16.
static void test_messages_hide_behind_a_micro_batch(void **state)
{
    (void)state;
    Config config = small_config();
    config.train.overlap = true;
    const double embed_s = 0.32 + 7, rest_s = 2 + 21;
    Rates fast = rates; // so that a micro-batch of two takes 3 s, 1 forward and 2 backward
    fast.product_flops = 2 * shape_train_flops(&small, 5) / 0.5 / 3;
    Plan plan;
    Cost cost;
    assert_ok(plan_make(&plan, &config, 2, 1));
    assert_ok(cost_make(&cost, &plan, &config, &fast, 0.5));
    assert_near(cost.products_s, 3 * 3.0);
    assert_near(cost.messages_s, 4 * (embed_s + rest_s));
    // Two rounds overlap a backward and a forward, the last a backward; then the all-gather.
    const double left_s = embed_s + rest_s - 2;
    assert_near(cost.exposed_s, 2 * (left_s - 1) + left_s + embed_s + rest_s - 1);
    assert_near(cost.step_s, cost.products_s + cost.memory_s + cost.exposed_s);

    config.train.reduce_dtype = REDUCE_BFLOAT16;
    assert_ok(cost_make(&cost, &plan, &config, &fast, 0.5));
    assert_near(cost.messages_s, 3 * (0.16 + 7 + 1 + 21) + embed_s + rest_s);

    // Parameters in bfloat16, too.
    config.train.compute = COMPUTE_BFLOAT16;
    assert_ok(cost_make(&cost, &plan, &config, &fast, 0.5));
    assert_near(cost.messages_s, 4 * (0.16 + 7 + 1 + 21));
    config.train.compute = COMPUTE_FLOAT32;

    // A micro-batch of 90 s: only the embedding is exposed, once each way.
    config.train.reduce_dtype = REDUCE_FLOAT32;
    fast.product_flops /= 30;
    assert_ok(cost_make(&cost, &plan, &config, &fast, 0.5));
    assert_near(cost.exposed_s, 2 * embed_s);
    config.train.overlap = false;
    assert_ok(cost_make(&cost, &plan, &config, &fast, 0.5));
    assert_near(cost.exposed_s, cost.messages_s);
}

static void test_efficiency_from_a_measured_step(void **state)
{
    (void)state;
    const Config config = small_config();
    Plan plan;
    Cost cost;
    double efficiency;
    assert_ok(plan_make(&plan, &config, 2, 1));
    assert_ok(cost_efficiency(&efficiency, &plan, &config, &rates, 5));
    assert_ok(cost_make(&cost, &plan, &config, &rates, efficiency));
    assert_near(cost.products_s + cost.memory_s, 5);
    assert_fails(BAD_INPUT, "--step-seconds is 0.01, but sums",
                 cost_efficiency(&efficiency, &plan, &config, &rates, 0.01));
}

static void test_memory_of_rounds_and_the_update(void **state)
{
    (void)state;
    Config config = small_config();
    config.train.sum_groups = 1;
    // Added (read, sum read and written), squared, and seven of AdamW.
    assert_near(cost_on(&config, 1).memory_s, (3 + 1 + 7) * 4640 / 1e6);
    config.train.sum_groups = 2;
    assert_near(cost_on(&config, 1).memory_s, (2 * 3 + 1 + 7) * 4640 / 1e6);
    assert_near(cost_on(&config, 2).memory_s, (4 + 1 + 7) * 4640 / 1e6); // from two ranks
}

// Two layers, D 8, Q 8, KV 4, F 12, micro-batches of 2 x 5 tokens: 384 bytes of float32 and
// (48 + 64 + 108) of bfloat16 for a layer and token.
static void test_activations_move_beside_products_in_bfloat16(void **state)
{
    (void)state;
    Config config = small_config();
    const double before_s = cost_on(&config, 1).memory_s;
    config.train.compute = COMPUTE_BFLOAT16;
    assert_near(cost_on(&config, 1).memory_s,
                before_s + config.train.global_batch * 5 * 2 * (384 + 2 * 220) / 1e6);
}

static void test_run_is_steps_validation_and_the_original(void **state)
{
    (void)state;
    Config config = small_config();
    const double forward_s = shape_train_flops(&small, 5) / 3 / 0.5e9;
    Cost cost = cost_on(&config, 1);
    assert_near(cost.run_s, 10 * cost.step_s);
    config.data.validation = (ValidationConfig){.given = true, .every = 4, .sequences = 3};
    cost = cost_on(&config, 1);
    assert_near(cost.validation_s, 4 * 3 * forward_s); // at steps 0, 4, 8, 10
    config.data.validation.every = 0;
    assert_near(cost_on(&config, 1).validation_s, 2 * 3 * forward_s);
    assert_near(cost_on(&config, 3).validation_s, 2 * 3 * forward_s / 3);
    config.model.convert = (ConvertConfig){
        .given = true, .rope = ROPE_2NORM, .target = {.rope_pairs = 1, .d_kv = 2}, .samples = 7};
    cost = cost_on(&config, 1);
    assert_near(cost.original_s, (3 + 7) * forward_s);
    assert_true(cost.convert_s > 0 && cost.statistics_s == 0);
    assert_near(cost.run_s, cost.steps_s + cost.validation_s + cost.original_s + cost.convert_s);
    config.model.convert.rope = ROPE_HIGH;
    assert_near(cost_on(&config, 1).original_s, 3 * forward_s);
}

// A conversion of SmolLM-135M's shape by the method closed.
static Config closed_config(void)
{
    Config config = small_config();
    ModelShape *s = &config.model.init.shape;
    s->n_layers = 30;
    s->d_model = 576;
    s->n_heads = 9;
    s->n_kv_heads = 3;
    s->head_dim = 64;
    s->rope_pairs = 32;
    s->d_ffn = 1536;
    config.data.seq_len = s->max_positions = 512;
    config.model.convert = (ConvertConfig){.given = true,
                                           .rope = ROPE_KL,
                                           .target = {.form = FORM_SHARED, .cache = .125},
                                           .recipe = {METHOD_CLOSED, .1},
                                           .samples = 1,
                                           .windows = 12,
                                           .attention_windows = 12,
                                           .window_len = 512};
    return config;
}

// 6 TFLOP and 4 GFLOP a layer, counted by hand, most of them in float64, at 0.5 GFLOP/s.
static void test_statistics_and_conversion(void **state)
{
    (void)state;
    Config config = closed_config();
    const Cost one = cost_on(&config, 1);
    assert_true(one.statistics_s > 2 * 5e12 / 0.5e9 && one.statistics_s < 2 * 7e12 / 0.5e9);
    assert_true(one.convert_s > 2 * 30 * 4e9 / 0.5e9);
    // Windows and layers are shared.
    const Cost three = cost_on(&config, 3);
    assert_near(three.statistics_s, one.statistics_s / 3);
    assert_true(three.convert_s < one.convert_s);
    // Moments of every head's own; of the method whitened none are used.
    config.model.convert.pool = POOL_HEAD;
    const Cost pools = cost_on(&config, 1);
    assert_true(pools.statistics_s > one.statistics_s && pools.convert_s > one.convert_s);
    config.model.convert.recipe.method = METHOD_WHITENED;
    assert_true(cost_on(&config, 1).convert_s < one.convert_s);
    // Twelve slots among 32 pairs: strides 1 and 2, and the best again.
    config.model.convert.rope = ROPE_2NORM;
    const Cost whitened = cost_on(&config, 1);
    config.model.convert.rope = ROPE_SHARED_UNIFORM;
    config.model.convert.recipe.mixes = true;
    assert_true(cost_on(&config, 1).convert_s > 3 * whitened.convert_s);
    // Rates of bfloat16 are not those of conversions.
    config.train.compute = COMPUTE_BFLOAT16;
    Plan plan;
    Cost cost;
    Rates both = rates;
    assert_ok(plan_make(&plan, &config, 1, 1));
    both.product_flops = 16 * rates.product_flops;
    both.attention_flops = rates.product_flops;
    assert_ok(cost_make(&cost, &plan, &config, &both, 0.5));
    config.train.compute = COMPUTE_FLOAT32;
    assert_near(cost.convert_s, cost_on(&config, 1).convert_s);
}

static void test_sgemm_is_measured_by_itself(void **state)
{
    (void)state;
    const Comm alone = {.size = 1};
    double flops = 0;
    const double start_s = log_seconds();
    assert_ok(rates_measure_products(&flops, &alone, COMPUTE_FLOAT32));
    assert_true(log_seconds() - start_s >= 9 * 0.05);
    // No core is slower than a tenth of a multiplication per cycle, no machine has 10^5 cores.
    assert_true(flops > 1e8 && flops < 1e16); // seen 2e10
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_of_the_fullest_rank),
        cmocka_unit_test(test_messages_of_rounds_and_the_gather),
        cmocka_unit_test(test_ranks_that_share_parameters_send_fewer),
        cmocka_unit_test(test_messages_hide_behind_a_micro_batch),
        cmocka_unit_test(test_efficiency_from_a_measured_step),
        cmocka_unit_test(test_memory_of_rounds_and_the_update),
        cmocka_unit_test(test_activations_move_beside_products_in_bfloat16),
        cmocka_unit_test(test_run_is_steps_validation_and_the_original),
        cmocka_unit_test(test_statistics_and_conversion),
        cmocka_unit_test(test_sgemm_is_measured_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
