// train/plan/serve_cost: memory and time of serving a model, by hand for small numbers.
#include "tests/support/testing.h"

#include "infer/weights.h"
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

static const Rates rates = {.product_flops = 1e11, .attention_flops = 1e11, .read_bytes = 2e10};

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

// 16 slots and a latent of 48: 2 (2 x 48 + 2 x 16) FLOP a head and position, whatever the number of
// KV heads; the up-projections are as many rows as there are query heads.
static void test_the_shared_form(void **state)
{
    (void)state;
    const KvFormat plain = kv_format_plain(KV_BFLOAT16);
    const ServeLoad load = load_of(4096, 3), one = load_of(64, 1);
    ModelShape gqa = mha, shared;
    gqa.n_kv_heads = 2;
    assert_ok(shape_convert_shared(&shared, &gqa, 16, 48, true));
    ServeCost cost = serve_cost(&shared, &plain, &load, &rates, 0.5);
    assert_near(cost.attention_s, 3 * 4096 * (4 * 8 * 2 * 128.0) / 5e10, 1e-12);
    assert_int_equal(cost.cache_bytes, 3 * 4096 * 4 * (2 * 16 + 48) * 2);
    const double matrices =
        4 * (512.0 * (8 * (32 + 64) + 32 + 48 + 512) + 48.0 * 2 * 512 + 3.0 * 512 * 1408) +
        512.0 * 1000;
    assert_near(serve_cost(&shared, &plain, &one, &rates, 0.5).weights_s, 2 * matrices / 2e10,
                1e-12);
    // Of a prompt in one chunk, attention is absorbed: 2 R up-projections of a token, and pairs.
    const double pairs = 0.5 * 64 * 65;
    assert_near(serve_prompt_flops(&shared, 64, 0),
                2 * 64 * (matrices - 512000.0) + 4 * 8 * 256.0 * pairs, 1);
    // A latent wider than a head's keys and values is expanded: 2 (2P + 2E) FLOP.
    assert_ok(shape_convert_shared(&shared, &mha, 16, 512, false));
    assert_near(serve_prompt_flops(&shared, 512, 0),
                4 * (2 * 512 * (512.0 * (8 * 96 + 32 + 512 + 512) + 3.0 * 512 * 1408) +
                     2 * 512 * 512 * 2 * 512.0 + 8 * 2 * 160.0 * 0.5 * 512 * 513),
                1);
}

// Products in bfloat16 have their weights in it and a rate of their own; absorbed attention has
// sgemm's.
static void test_products_in_bfloat16(void **state)
{
    (void)state;
    const KvFormat plain = kv_format_plain(KV_BFLOAT16);
    const Rates both = {.product_flops = 8e11, .attention_flops = 1e11, .read_bytes = 2e10};
    const ModelShape wide = converted(32, SVD_JOINT);
    ServeLoad load = load_of(4096, 100);
    const ServeCost before = serve_cost(&wide, &plain, &load, &rates, 0.5);
    load.compute = COMPUTE_BFLOAT16;
    const ServeCost cost = serve_cost(&wide, &plain, &load, &both, 0.5);
    assert_near(cost.attention_s, before.attention_s, 1e-12);
    assert_near(cost.weights_s, before.weights_s / 8, 1e-10);
    assert_true(cost.prompt_s < before.prompt_s);
    assert_int_equal(cost.weights_bytes, infer_weights_bytes(&wide, DTYPE_BF16, COMPUTE_BFLOAT16));
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
        cmocka_unit_test(test_the_shared_form),
        cmocka_unit_test(test_products_in_bfloat16),
        cmocka_unit_test(test_weights_are_read_once_for_a_batch),
        cmocka_unit_test(test_the_largest_batch_is_the_last_that_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
