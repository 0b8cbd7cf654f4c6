// The plan of a small run against sums made by hand, and what it refuses.
#define _GNU_SOURCE
#include "tests/support/testing.h"

#include "base/arena.h"
#include "data/prefetch.h"
#include "model/attention/attention.h"
#include "model/kernels/gemm.h"
#include "model/transformer/workspace.h"
#include "train/parallel/comm.h"
#include "train/plan/plan.h"

#include <string.h>

enum { ALIGNED = 64 }; // bytes: every array of an arena is a multiple of it

// The sums below count small arrays, or what fits into what, without red zones between them.
static void skip_with_red_zones(void)
{
    if (ARENA_RED_ZONE_BYTES > 0)
        skip();
}

// 20 x 8 embedding, two layers of 8 + 64 + 32 + 32 + 64 + 8 + 3 * 96 = 496, norm of 8: 1160 floats.
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

// N = 10 tokens in a micro-batch of 2 sequences of 5; two micro-batches.
static Config small_config(void)
{
    return (Config){
        .model.init = {.given = true, .shape = small},
        .data.seq_len = 5,
        .train = {.steps = 1, .global_batch = 4, .micro_batch = 2, .sum_groups = 2},
    };
}

// What an array of n floats takes.
static int64_t floats(int64_t n)
{
    return (n * 4 + ALIGNED - 1) / ALIGNED * ALIGNED + ARENA_RED_ZONE_BYTES;
}

static void test_parameters_gradients_moments(void **state)
{
    (void)state;
    skip_with_red_zones();
    Config config = small_config();
    Plan plan;
    assert_ok(plan_make(&plan, &config, 2, 1));
    assert_int_equal(plan.parameters, floats(1160) + floats(4)); // and the pairs
    assert_int_equal(plan.gradients, floats(1160));
    // Shares are blocks of 1024, and no bucket has more: rank 0 owns all parameters.
    assert_int_equal(plan.moments, 2 * floats(1160));
    // Two ranks' shares of the 496 of a layer; squares of 4 buckets, 2 losses, 2 waits, 8 phases,
    // who wants to end.
    const int64_t sums = floats(2 * (4 + 2 + 2 + 8 + 1));
    assert_int_equal(plan.communication, floats(2 * 496) + sums);
    config.train.overlap = true; // three at once
    assert_ok(plan_make(&plan, &config, 2, 1));
    assert_int_equal(plan.communication, 3 * floats(2 * 496) + sums);
    config.train.reduce_dtype = REDUCE_BFLOAT16; // what is sent, and what arrives
    assert_ok(plan_make(&plan, &config, 2, 1));
    assert_int_equal(plan.communication, 3 * floats(496 / 2 + 2 * 496 / 2) + sums);
    assert_int_equal(plan.original_model + plan.original_pass + plan.conversion, 0);
    assert_true(plan.process > 1 << 20 && plan.process < INT64_C(1) << 30);
}

static void test_a_second_round_takes_a_sum_of_its_own(void **state)
{
    (void)state;
    Config config = small_config();
    Plan one, two;
    assert_ok(plan_make(&two, &config, 1, 1)); // two groups, one rank
    assert_int_equal(two.gradients, 2 * floats(1160));
    config.train.sum_groups = 1;
    assert_ok(plan_make(&one, &config, 1, 1));
    assert_int_equal(one.gradients, floats(1160));
    assert_fails(BAD_INPUT, "train.sum_groups is 1, fewer than 2 ranks",
                 plan_make(&two, &config, 2, 1));
}

// x_in, x_mid, attn_out; 1/rms; qkv; lse; gate_up
static int64_t layer_bytes(int64_t N)
{
    return floats(N * 8) * 3 + floats(N) * 2 + floats(N * 16) + floats(N * 2) + floats(N * 24);
}

// What the two layers keep of where their activations lie.
static int64_t layer_views(void)
{
    return floats(2 * sizeof(LayerSaved) / sizeof(float));
}

static void test_activations(void **state)
{
    (void)state;
    skip_with_red_zones();
    Config config = small_config();
    config.train.sum_groups = 1; // gradients add up while activations wait
    Plan plan;
    assert_ok(plan_make(&plan, &config, 1, 1));
    const int64_t N = 10, tables = 2 * floats(5 * 2), views = layer_views();
    assert_int_equal(layer_bytes(N), 2816);
    assert_int_equal(plan.activations,
                     2 * layer_bytes(N) + tables + floats(N * 8) + floats(N) + views);
    assert_int_equal(plan.communication, floats(2 * (4 + 2 + 1 + 9 + 1))); // alone: the sums
}

// Activations are stored in memory of gradients: each layer's gradients have 1984 bytes. Those of
// the last layer hold all activations behind the layers; those of the first layer hold the last
// layer's activations except gate_up.
static void test_activations_over_gradients(void **state)
{
    (void)state;
    skip_with_red_zones();
    Config config = small_config();
    Plan plan;
    assert_ok(plan_make(&plan, &config, 1, 1));
    const int64_t N = 10, tables = 2 * floats(5 * 2), views = layer_views();
    assert_int_equal(plan.activations, layer_bytes(N) + floats(N * 24) + tables + views);
    assert_int_equal(plan.gradients, 2 * floats(1160));
}

// Only in the upper half of the layers have the gradients been sent before forward writes there.
static void test_gradients_that_are_still_sent_are_reused_by_upper_layers_alone(void **state)
{
    (void)state;
    skip_with_red_zones();
    Config config = small_config();
    config.model.init.shape.n_layers = 4;
    config.data.seq_len = 1; // few tokens: each layer's gradients have room for a layer's
    config.train.global_batch = 8;
    config.train.sum_groups = 4; // two rounds on two ranks
    Plan now, later;
    assert_ok(plan_make(&now, &config, 2, 1));
    config.train.overlap = true;
    assert_ok(plan_make(&later, &config, 2, 1));
    assert_int_equal(later.activations, now.activations + layer_bytes(2));
    config.train.global_batch = 4;
    config.train.sum_groups = 2; // one round: sent before the next forward
    assert_ok(plan_make(&later, &config, 2, 1));
    assert_int_equal(later.activations, now.activations);
}

static void test_scratch(void **state)
{
    (void)state;
    skip_with_red_zones();
    Config config = small_config();
    Plan plan;
    assert_ok(plan_make(&plan, &config, 1, 3));
    AttentionDims dims = {.B = 2, .T = 5, .H = 2, .K = 1, .E = 4};
    int64_t N = 10, batch = 2 * floats(N) + floats(6);
    int64_t attention =
        attention_scratch_bytes(&dims, COMPUTE_FLOAT32, 3, true) + floats(N * 8) + floats(N * 16);
    int64_t stream = floats(N * 8) * 3, batches = batch * (1 + PREFETCH_BATCHES);
    assert_int_equal(plan.scratch, attention + stream + batches);
    config.model.init.shape.vocab_size = 100000; // logits share the room of all that
    assert_ok(plan_make(&plan, &config, 1, 3));
    assert_true(floats(N * 100000) > attention + stream);
    assert_int_equal(plan.scratch, floats(N * 100000) + batches);
    config.train.sum_groups = 1; // nothing over gradients: the head's input and its gradient
    assert_ok(plan_make(&plan, &config, 1, 3));
    assert_int_equal(plan.scratch, floats(N * 100000) + 2 * floats(N * 8) + batches);
}

static Config converted_config(void)
{
    Config config = small_config();
    config.model.convert = (ConvertConfig){
        .given = true, .rope = ROPE_2NORM, .target = {.rope_pairs = 1, .d_kv = 2}, .samples = 4};
    return config;
}

static void test_recomputing_takes_fewer_activations(void **state)
{
    (void)state;
    Config config = small_config();
    config.model.init.shape.n_layers = 8; // more than gradients have room for
    config.data.seq_len = 16;
    Plan all, attention, layer;
    assert_ok(plan_make(&all, &config, 2, 1));
    config.train.recompute = RECOMPUTE_ATTENTION;
    assert_ok(plan_make(&attention, &config, 2, 1));
    config.train.recompute = RECOMPUTE_LAYER;
    assert_ok(plan_make(&layer, &config, 2, 1));
    assert_true(attention.activations < all.activations);
    assert_true(layer.activations < attention.activations);
    assert_int_equal(layer.scratch, all.scratch);
}

static void test_conversion(void **state)
{
    (void)state;
    skip_with_red_zones();
    Config config = converted_config();
    Plan plan;
    assert_ok(plan_make(&plan, &config, 2, 1));
    // Layers of 8 + 64 + 16 + 16 + 4 + 8 + 64 + 8 + 288 = 476: 1120 floats, 2 pairs.
    assert_int_equal(plan.parameters, 4480 + 64);
    assert_int_equal(plan.original_model, floats(1160) + 64);
    // Queries 8 x 8, keys and values 6 x 8; then 6 x 2 vectors and, one after the other, 6 x 6
    // products, vectors, the rows in double; LAPACK asks for at least 26 x 6 doubles, 10 x 6
    // integers.
    int64_t least = 256 + 192 + 96 + 288 + 96 + 384 + 1248 + 240;
    assert_true(plan.conversion >= least && plan.conversion < least + 2048); // seen + 656
    assert_true(plan.original_pass > 5 * 20 * 4);
}

static void test_passes_of_the_original(void **state)
{
    (void)state;
    Config config = converted_config();
    Plan plan;
    config.model.convert.rope = ROPE_UNIFORM;
    assert_ok(plan_make(&plan, &config, 1, 1));
    assert_int_equal(plan.original_model + plan.original_pass, 0);
    config.data.validation.given = true; // measures the original first
    assert_ok(plan_make(&plan, &config, 1, 1));
    assert_true(plan.original_model > 0 && plan.original_pass > 0);
    config = converted_config();
    char scores[] = "scores.h5";
    config.model.convert.scores = scores;
    assert_ok(plan_make(&plan, &config, 1, 1));
    assert_int_equal(plan.original_pass, 0);
}

// Of the second moments [8, 8] a pool has two, and a file their triangles of 36.
static void test_pools_of_statistics(void **state)
{
    (void)state;
    skip_with_red_zones();
    Config config = converted_config();
    Plan layer, head;
    config.model.convert.rope = ROPE_KL;
    config.model.convert.recipe = (ConvertRecipe){METHOD_CLOSED, .1};
    config.model.convert.windows = config.model.convert.attention_windows = 4;
    config.model.convert.window_len = 5;
    assert_ok(plan_make(&layer, &config, 1, 1));
    assert_true(layer.refit > 0 && layer.original_model > 0);
    config.model.convert.pool = POOL_HEAD;
    assert_ok(plan_make(&head, &config, 1, 1));
    const int H = small_config().model.init.shape.n_heads;
    const int64_t pools = (H - 1) * 2 * 64 * 8, buffers = (H - 1) * 3 * 36 * 8;
    // Sums and the layer; then the layer, and where they count products of its moments.
    assert_int_equal(head.original_pass - layer.original_pass, 2 * pools + buffers);
    assert_true(head.conversion - layer.conversion >= pools + buffers);
    assert_int_equal(head.refit, layer.refit);
}

static void test_peak_is_the_larger_of_converting_and_training(void **state)
{
    (void)state;
    Plan plan = {.n_sharers = 1,
                 .parameters = 100,
                 .gradients = 100,
                 .moments = 50,
                 .activations = 7,
                 .scratch = 3,
                 .communication = 2,
                 .process = 1000};
    assert_int_equal(plan_peak_bytes(&plan), 1262);
    plan.conversion = 41;
    assert_int_equal(plan_peak_bytes(&plan), 1262); // 100 + 41 while converting
    plan.conversion = 180;
    assert_int_equal(plan_peak_bytes(&plan), 1280);
    plan.original_model = 120; // gone by then
    plan.original_pass = 30;
    assert_int_equal(plan_peak_bytes(&plan), 1280);
    plan.original_pass = 170;
    assert_int_equal(plan_peak_bytes(&plan), 1290);
    plan.n_sharers = 4; // 25 in training, 30 + 170 before conversion, 25 + 180 after
    assert_int_equal(plan_peak_bytes(&plan), 1205);
    plan.conversion = 41;
    assert_int_equal(plan_peak_bytes(&plan), 1200);
    plan.original_pass = 0;
    assert_int_equal(plan_peak_bytes(&plan), 1187);
}

static void test_who_shares_parameters(void **state)
{
    (void)state;
    Config config = {0};
    assert_int_equal(plan_sharers(&config, 1, 1), 1);
    assert_int_equal(plan_sharers(&config, 8, 8), 8);
    assert_int_equal(plan_sharers(&config, 8, 64), 8);
    assert_int_equal(plan_sharers(&config, 64, 8), 8);
    assert_int_equal(plan_sharers(&config, 12, 8), 1); // hosts of 8 and 4
    config.train.ranks_per_copy = 1;
    assert_int_equal(plan_sharers(&config, 64, 8), 1);
    config.train.ranks_per_copy = 4;
    assert_int_equal(plan_sharers(&config, 64, 8), 4);
    assert_int_equal(plan_sharers(&config, 2, 8), 2);
    config.train.ranks_per_copy = 3;
    assert_int_equal(plan_sharers(&config, 64, 8), 1);
}

// The output of plan_print(), in static storage.
static const char *printed(const Plan *plan, const Config *config)
{
    static char text[8192];
    FILE *out = fmemopen(text, sizeof text, "w");
    assert_non_null(out);
    plan_print(out, plan, config);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void assert_says(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in:\n%s", part, text);
}

static void test_budget_and_machine_are_told(void **state)
{
    (void)state;
    Config config = converted_config();
    Plan plan;
    config.train.steps = 50;
    config.data.pretraining_tokens = 250000;
    assert_ok(plan_make(&plan, &config, 2, 3));
    const char *text = printed(&plan, &config);
    // 2 layers of 2 RoPE dims and d_kv 2, against 2 x 4 for keys and as many for values.
    assert_says(text,
                "KV cache     16 bytes per token at 16 bits, original 32: -50.00 %\n"
                "KV cache per token    float32   bfloat16     8 bits     4 bits     3 bits     "
                "2 bits  bytes\n"
                "  this model               32         16        8.5        4.5        3.5");
    assert_says(text, "ranks        2, 3 threads each, OpenBLAS 0.");
    if (gemm_kernel_name() != NULL)
        assert_says(text, "\nproducts     in float32 by the program's own kernels for AVX-512\n");
    else
        assert_says(text, "\nproducts     in float32 by OpenBLAS\n");
    assert_says(text, "run          50 steps = 0.001 M tokens, 0.4 % of 0.25 M of pretraining");
    config.data.pretraining_tokens = 0;
    assert_null(strstr(printed(&plan, &config), "pretraining"));
    config.train.compute = COMPUTE_BFLOAT16;
    bf16_force_kernel(BF16_EMULATED);
    assert_says(printed(&plan, &config), "\nproducts     in bfloat16 emulated");
}

static void test_shared_parameters_are_told_by_their_part(void **state)
{
    (void)state;
    Config config = converted_config();
    Plan plan = {.n_ranks = 8, .n_sharers = 4, .parameters = 12 << 20};
    plan.shape = plan.original = config.model.init.shape;
    assert_says(printed(&plan, &config), "parameters (shared by 4 ranks)          3.0\n");
    plan.n_sharers = 1;
    assert_says(printed(&plan, &config), "parameters                             12.0\n");
}

static void test_open_files_and_packed_operands_take_memory(void **state)
{
    (void)state;
    Config config = small_config();
    char one[PATH_BYTES], two[] = CONFIGS_DIR "/paper/smollm-1.7b-dkv*.yaml";
    char *patterns[] = {one, two};
    snprintf(one, sizeof one, "%s", testing_absent("*.h5"));
    SourceSpec source = {.shards = patterns, .n_shards = 2};
    Plan plan, without;
    assert_ok(plan_make(&without, &config, 1, 1));
    config.data.sources = &source;
    config.data.n_sources = 1;
    assert_ok(plan_make(&plan, &config, 1, 1));
    assert_int_equal(without.shards, 750000);
    assert_int_equal(plan.shards,
                     5 * 750000); // three that match, one that nothing matches yet, a checkpoint
    // OpenBLAS: small enough for all rows at once: no more than the weights of gate and up, 24 x 8.
    const int64_t buffer = gemm_buffer_bytes(COMPUTE_FLOAT32, 1);
    assert_int_equal(plan.products, buffer > 0 ? buffer : 24 * 8 * 4);
    without.process = plan.process;
    assert_int_equal(plan_peak_bytes(&plan) - plan_peak_bytes(&without), 3000000);
}

static void test_more_ranks_than_micro_batches_are_refused(void **state)
{
    (void)state;
    Config config = small_config();
    Plan plan = {.n_ranks = -7};
    assert_fails(BAD_INPUT, "gives 2 micro-batches for 3 ranks; use at most 2",
                 plan_make(&plan, &config, 3, 1));
    assert_int_equal(plan.n_ranks, -7); // set on success only
    assert_ok(plan_make(&plan, &config, 2, 1));
}

static void test_micro_batch_beyond_counting_is_refused(void **state)
{
    (void)state;
    Config config = small_config();
    config.data.seq_len = 1 << 24;
    config.train.global_batch = config.train.micro_batch = 1 << 20;
    Plan plan;
    assert_fails(BAD_INPUT, "train.micro_batch 1048576 of data.seq_len 16777216 is more than",
                 plan_make(&plan, &config, 1, 1));
}

static void test_conversion_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    Config config = converted_config();
    config.model.convert.target.rope_pairs = 3;
    Plan plan;
    assert_fails(BAD_INPUT, "3", plan_make(&plan, &config, 1, 1));
    char missing[PATH_BYTES];
    snprintf(missing, sizeof missing, "%s", testing_absent("model"));
    config = converted_config();
    config.model.init.given = false;
    config.model.base = missing;
    assert_fails(BAD_INPUT, "/absent/model: not a directory", plan_make(&plan, &config, 1, 1));
}

static void test_resident_memory_is_seen(void **state)
{
    (void)state;
    int64_t before = plan_resident_bytes();
    Arena arena = arena_start("test");
    arena_place(&arena, 32 << 20, 1);
    assert_ok(arena_allocate(&arena));
    memset(arena_place(&arena, 32 << 20, 1), 1, 32 << 20);
    assert_true(plan_resident_bytes() - before >= 31 << 20);
    arena_release(&arena);
    assert_true(plan_peak_resident_bytes() - before >= 31 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters_gradients_moments),
        cmocka_unit_test(test_a_second_round_takes_a_sum_of_its_own),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_activations_over_gradients),
        cmocka_unit_test(test_gradients_that_are_still_sent_are_reused_by_upper_layers_alone),
        cmocka_unit_test(test_scratch),
        cmocka_unit_test(test_recomputing_takes_fewer_activations),
        cmocka_unit_test(test_conversion),
        cmocka_unit_test(test_passes_of_the_original),
        cmocka_unit_test(test_pools_of_statistics),
        cmocka_unit_test(test_peak_is_the_larger_of_converting_and_training),
        cmocka_unit_test(test_who_shares_parameters),
        cmocka_unit_test(test_budget_and_machine_are_told),
        cmocka_unit_test(test_shared_parameters_are_told_by_their_part),
        cmocka_unit_test(test_open_files_and_packed_operands_take_memory),
        cmocka_unit_test(test_more_ranks_than_micro_batches_are_refused),
        cmocka_unit_test(test_micro_batch_beyond_counting_is_refused),
        cmocka_unit_test(test_conversion_that_does_not_fit_is_refused),
        cmocka_unit_test(test_resident_memory_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
