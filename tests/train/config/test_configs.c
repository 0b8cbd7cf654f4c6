// configs/: every file loads; the paper's experiments are the published ones.
#define _GNU_SOURCE
#include "tests/support/testing.h"

#include "train/plan/plan.h"

#include <glob.h>
#include <math.h>
#include <string.h>

// The models of MHA2MLA's Table 1, and Llama-2-13B, as their config.json have them.
static const struct PublishedModel {
    const char *file, *base;
    ModelShape shape;
    int d_kv[3]; // at -68.75, -81.25, -87.5 % of the cache
    int steps, global_batch, seq_len, warmup, decay_start;
    double tokens_1e9;                  // published, to three digits
    double pretraining_tokens, percent; // published, and the share of them that heals
} models[] = {
    {"smollm-135m",
     "models/SmolLM-135M",
     {30, 576, 9, 3, 64, 1536, 49152, 2048, 32, 0, SVD_JOINT, true, 1e4, 1e-5},
     {32, 16, 8},
     18000,
     64,
     2048,
     900,
     16200,
     2.36,
     600e9,
     0.39},
    {"smollm-360m",
     "models/SmolLM-360M",
     {32, 960, 15, 5, 64, 2560, 49152, 2048, 32, 0, SVD_JOINT, true, 1e4, 1e-5},
     {32, 16, 8},
     18000,
     64,
     2048,
     900,
     16200,
     2.36,
     600e9,
     0.39},
    {"smollm-1.7b",
     "models/SmolLM-1.7B",
     {24, 2048, 32, 32, 64, 8192, 49152, 2048, 32, 0, SVD_JOINT, true, 1e4, 1e-5},
     {32, 16, 8},
     12000,
     256,
     2048,
     1000,
     10000,
     6.29,
     1e12,
     0.63},
    {"llama-2-7b",
     "models/Llama-2-7B",
     {32, 4096, 32, 32, 128, 11008, 32000, 4096, 64, 0, SVD_JOINT, false, 1e4, 1e-5},
     {64, 32, 16},
     12000,
     256,
     4096,
     1000,
     10000,
     12.6,
     2e12,
     0.63},
    {"llama-2-13b",
     "models/Llama-2-13B",
     {40, 5120, 40, 40, 128, 13824, 32000, 4096, 64, 0, SVD_JOINT, false, 1e4, 1e-5},
     {64, 32, 16},
     12000,
     256,
     4096,
     1000,
     10000,
     12.6,
     2e12,
     0.63},
};
enum { N_MODELS = sizeof models / sizeof *models };

static void load(Config *config, const struct PublishedModel *model, const char *variant,
                 char *const *overrides, int n_overrides)
{
    char path[512];
    snprintf(path, sizeof path, CONFIGS_DIR "/paper/%s-%s.yaml", model->file, variant);
    assert_ok(config_load(config, path, overrides, n_overrides));
    assert_string_equal(config->model.base, model->base);
}

static double cache_saved_percent(const ModelShape *original, const ConvertConfig *convert)
{
    ModelShape converted;
    assert_ok(shape_convert(&converted, original, convert->target.rope_pairs, convert->target.d_kv,
                            convert->target.svd));
    return 100.0 *
           (1.0 - (double)shape_cache_numbers(&converted) / (double)shape_cache_numbers(original));
}

static void check_recipe(const Config *config, const struct PublishedModel *model)
{
    const Schedule *schedule = &config->optim.schedule;
    assert_int_equal(config->train.steps, model->steps);
    assert_int_equal(config->train.global_batch, model->global_batch);
    assert_int_equal(config->data.seq_len, model->seq_len);
    assert_int_equal(schedule->warmup_steps, model->warmup);
    assert_int_equal(schedule->decay_start, model->decay_start);
    assert_int_equal(schedule->decay_start + schedule->decay_steps, model->steps);
    assert_true(schedule->lr == 1e-4 && schedule->min_lr == 0 && config->optim.clip == 1.0);
    assert_true(config->optim.adamw.beta1 == 0.9 && config->optim.adamw.beta2 == 0.95);
    double tokens_1e9 =
        1e-9 * config->train.steps * config->train.global_batch * config->data.seq_len;
    assert_true(config->data.pretraining_tokens == model->pretraining_tokens);
    double percent = 1e11 * tokens_1e9 / model->pretraining_tokens;
    assert_true(fabs(percent - model->percent) < 0.005); // seen 0.393, 0.393, 0.629, 0.629
    // Seen 2.359, 2.359, 6.291, 12.583: rounding to three digits.
    assert_true(fabs(tokens_1e9 / model->tokens_1e9 - 1) < 0.0015);
    double weights = 0;
    for (int i = 0; i < config->data.n_sources; i++)
        weights += config->data.sources[i].weight;
    assert_true(fabs(weights - 1) < 1e-12);
    assert_int_equal(config->data.n_sources, 5);
    assert_true(config->data.sources[0].weight == 0.70);
}

static void test_every_config_loads(void **state)
{
    (void)state;
    const char *const patterns[] = {CONFIGS_DIR "/*.yaml", CONFIGS_DIR "/*/*.yaml"};
    size_t n_loaded = 0;
    for (int p = 0; p < 2; p++) {
        glob_t found;
        assert_int_equal(glob(patterns[p], 0, NULL, &found), 0);
        for (size_t i = 0; i < found.gl_pathc; i++) {
            Config config;
            assert_ok(config_load(&config, found.gl_pathv[i], NULL, 0));
            config_release(&config);
            n_loaded++;
        }
        globfree(&found);
    }
    assert_true(n_loaded >= 35); // reference, two of the demo, 20 of the paper, 12 beyond it
}

static void test_baselines_keep_their_attention(void **state)
{
    (void)state;
    for (int m = 0; m < N_MODELS; m++) {
        Config config;
        load(&config, &models[m], "baseline", NULL, 0);
        assert_false(config.model.convert.given);
        check_recipe(&config, &models[m]);
        config_release(&config);
    }
}

static void test_paper_conversions_save_the_published_cache(void **state)
{
    (void)state;
    const double saved_percent[3] = {68.75, 81.25, 87.5};
    for (int m = 0; m < N_MODELS; m++) {
        for (int i = 0; i < 3; i++) {
            Config config;
            char variant[32];
            snprintf(variant, sizeof variant, "dkv%d", models[m].d_kv[i]);
            load(&config, &models[m], variant, NULL, 0);
            const ConvertConfig *convert = &config.model.convert;
            assert_int_equal(convert->rope, ROPE_2NORM);
            assert_int_equal(convert->target.svd, SVD_JOINT);
            assert_int_equal(convert->target.rope_pairs, models[m].shape.head_dim / 16);
            assert_true(fabs(cache_saved_percent(&models[m].shape, convert) - saved_percent[i]) <
                        1e-9); // seen 0
            check_recipe(&config, &models[m]);
            config_release(&config);
        }
    }
}

// The same models, data and caches as the paper's, a third of the steps.
static void test_configs_beyond_the_paper(void **state)
{
    (void)state;
    static const char *const shares[3] = {"31.25", "18.75", "12.5"};
    for (int m = 0; m < N_MODELS - 1; m++) {
        for (int i = 0; i < 3; i++) {
            Config config, paper;
            Plan plan;
            char path[512], variant[32];
            snprintf(path, sizeof path, CONFIGS_DIR "/beyond/%s-%s.yaml", models[m].file,
                     shares[i]);
            snprintf(variant, sizeof variant, "dkv%d", models[m].d_kv[i]);
            assert_ok(config_load(&config, path, NULL, 0));
            load(&paper, &models[m], variant, NULL, 0);
            assert_string_equal(config.model.base, models[m].base);
            assert_ok(plan_make_of(&plan, &models[m].shape, &config, 32, 1));
            assert_true(shape_is_shared(&plan.shape));
            const double saved = cache_saved_percent(&models[m].shape, &paper.model.convert);
            assert_true(100 * (double)shape_cache_numbers(&plan.shape) ==
                        (100 - saved) * (double)shape_cache_numbers(&plan.original));
            assert_int_equal(3 * config.train.steps, paper.train.steps);
            assert_int_equal(config.train.global_batch, paper.train.global_batch);
            assert_int_equal(config.data.seq_len, paper.data.seq_len);
            assert_int_equal(config.data.n_sources, 5);
            for (int s = 0; s < 5; s++) {
                assert_string_equal(config.data.sources[s].name, paper.data.sources[s].name);
                assert_true(config.data.sources[s].weight == paper.data.sources[s].weight);
            }
            assert_true(config.distill.given);
            config_release(&config);
            config_release(&paper);
        }
    }
}

// Plans are made of the shape, without the model's files.
static void test_every_experiment_has_a_plan(void **state)
{
    (void)state;
    for (int m = 0; m < N_MODELS; m++) {
        Config config;
        Plan plan;
        char variant[32];
        snprintf(variant, sizeof variant, "dkv%d", models[m].d_kv[2]);
        load(&config, &models[m], variant, NULL, 0);
        assert_ok(plan_make_of(&plan, &models[m].shape, &config, 32, 1));
        assert_int_equal(shape_cache_numbers(&plan.shape) * 8, shape_cache_numbers(&plan.original));
        assert_true(plan_peak_bytes(&plan) > 0);
        config_release(&config);
    }
}

// The RoPE strategies at full rank, as docs/usage.md has the command.
static void test_rope_ablations_keep_full_rank(void **state)
{
    (void)state;
    const struct {
        int model;
        char d_kv[32];
    } cases[] = {{0, "--model.convert.d_kv=120"}, {2, "--model.convert.d_kv=64"}};
    for (int i = 0; i < 2; i++) {
        Config config;
        const struct PublishedModel *model = &models[cases[i].model];
        char d_kv[32], rope[] = "--model.convert.rope=uniform", *overrides[] = {d_kv, rope};
        memcpy(d_kv, cases[i].d_kv, sizeof d_kv);
        load(&config, model, "dkv16", overrides, 2);
        const ConvertConfig *convert = &config.model.convert;
        assert_int_equal(convert->rope, ROPE_UNIFORM);
        assert_int_equal(convert->target.rope_pairs, 4);
        ModelShape converted;
        assert_ok(
            shape_convert(&converted, &model->shape, 4, convert->target.d_kv, convert->target.svd));
        assert_fails(BAD_INPUT, "allowed are 1 to",
                     shape_convert(&converted, &model->shape, 4, convert->target.d_kv + 1,
                                   convert->target.svd));
        check_recipe(&config, model);
        config_release(&config);
    }
}

// Halved ranks of keys and of values have the cache of a joint one.
static void test_split_ablations_have_the_same_cache(void **state)
{
    (void)state;
    for (int m = 0; m < N_MODELS; m++) {
        for (int i = 0; i < 3; i++) {
            Config split, joint;
            char variant[32], svd[] = "--model.convert.svd=split", *overrides[] = {svd};
            snprintf(variant, sizeof variant, "dkv%d", models[m].d_kv[i]);
            load(&split, &models[m], variant, overrides, 1);
            load(&joint, &models[m], variant, NULL, 0);
            assert_int_equal(split.model.convert.target.svd, SVD_SPLIT);
            assert_true(cache_saved_percent(&models[m].shape, &split.model.convert) ==
                        cache_saved_percent(&models[m].shape, &joint.model.convert));
            config_release(&split);
            config_release(&joint);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_config_loads),
        cmocka_unit_test(test_baselines_keep_their_attention),
        cmocka_unit_test(test_paper_conversions_save_the_published_cache),
        cmocka_unit_test(test_configs_beyond_the_paper),
        cmocka_unit_test(test_every_experiment_has_a_plan),
        cmocka_unit_test(test_rope_ablations_keep_full_rank),
        cmocka_unit_test(test_split_ablations_have_the_same_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
