// train/plan/serve_cost: memory and time of serving a model, by hand for small numbers.
#include "tests/support/testing.h"

#include "train/plan/serve_cost.h"

#include <math.h>

static const ModelShape mha = {
    .n_layers = 4,
    .d_model = 512,
    .n_heads = 8,
    .n_kv_heads = 8,
    .head_dim = 64,
    .d_ffn = 1408,
    .vocab_size = 1000,
    .max_positions = 4096,
    .rope_pairs = 32,
    .rope_theta = 10000.0,
    .rms_eps = 1e-5,
};

static const Rates rates = {.product_flops = 1e11, .read_bytes = 2e10};

static void assert_near(double got, double expected, double tolerance)
{
    if (!(fabs(got - expected) <= tolerance))
        fail_msg("%.17g, expected %.17g", got, expected);
}

static ModelShape converted(int d_kv, SvdKind svd)
{
    ModelShape shape;
    assert_ok(shape_convert(&shape, &mha, 4, d_kv, svd));
    return shape;
}

static ServeLoad load_of(int context, int batch)
{
    return (ServeLoad){.context = context,
                       .batch = batch,
                       .dtype = DTYPE_BF16,
                       .n_threads = 2,
                       .process_bytes = 1 << 20,
                       .memory_bytes = 1 << 30};
}

static void test_attention_takes_its_bytes_or_its_flop(void **state)
{
    (void)state;
    const KvFormat plain = kv_format_plain(KV_BFLOAT16);
    const ServeLoad load = load_of(4096, 3);
    const ServeCost full = serve_cost(&mha, &plain, &load, &rates, 0.5);
    // 3 x 4096 positions of 4 layers x 8 heads x 128 numbers of 2 bytes; their FLOP, 4 x 64 a head,
    // take 0.8 of the time.
    assert_near(full.attention_s, 3 * 4096 * (4 * 8 * 128 * 2.0) / 2e10, 1e-12);
    assert_false(full.is_compute_bound);
    // Half of the head's width in d_kv: R = 256, 4 (R + 4) FLOP a head and position.
    const ModelShape wide = converted(32, SVD_JOINT), split = converted(32, SVD_SPLIT);
    ServeCost cost = serve_cost(&wide, &plain, &load, &rates, 0.5);
    assert_near(cost.attention_s, 3 * 4096 * (4 * 8 * 4 * 260.0) / 5e10, 1e-12);
    assert_true(cost.is_compute_bound && cost.attention_s > full.attention_s);
    // A split latent has a half for the keys and a half for the values.
    cost = serve_cost(&split, &plain, &load, &rates, 0.5);
    assert_near(cost.attention_s, 3 * 4096 * (4 * 8 * 4 * 132.0) / 5e10, 1e-12);
    assert_near(cost.tokens_per_s, 3 / (cost.weights_s + cost.attention_s), 1e-9);
}

// Weights are read once for all sequences, until there are so many that the products count.
static void test_weights_are_read_once_for_a_batch(void **state)
{
    (void)state;
    const KvFormat plain = kv_format_plain(KV_BFLOAT16);
    const double matrices = 4 * (4.0 * 512 * 512 + 3.0 * 512 * 1408) + 512.0 * 1000;
    const ServeLoad one = load_of(64, 1), many = load_of(64, 100);
    assert_near(serve_cost(&mha, &plain, &one, &rates, 0.5).weights_s, 2 * matrices / 2e10, 1e-12);
    assert_near(serve_cost(&mha, &plain, &many, &rates, 0.5).weights_s, 100 * 2 * matrices / 5e10,
                1e-10);
}

static void test_the_largest_batch_is_the_last_that_fits(void **state)
{
    (void)state;
    const KvFormat plain = kv_format_plain(KV_BFLOAT16);
    ServeLoad load = load_of(1024, 1);
    const int largest = serve_cost(&mha, &plain, &load, &rates, 0.5).largest_batch;
    assert_true(largest > 1);
    load.batch = largest;
    assert_true(serve_cost(&mha, &plain, &load, &rates, 0.5).total_bytes <= load.memory_bytes);
    load.batch = largest + 1;
    assert_true(serve_cost(&mha, &plain, &load, &rates, 0.5).total_bytes > load.memory_bytes);
    load.memory_bytes = 1 << 20; // no room for the weights
    assert_int_equal(serve_cost(&mha, &plain, &load, &rates, 0.5).largest_batch, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_takes_its_bytes_or_its_flop),
        cmocka_unit_test(test_weights_are_read_once_for_a_batch),
        cmocka_unit_test(test_the_largest_batch_is_the_last_that_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
