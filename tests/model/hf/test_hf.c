// Hugging Face directories: round trips of every kind of model, and models that other programs
// wrote.
#include "tests/support/testing_hf.h"

#include "base/log.h"

#include <math.h>
#include <stdio.h>

static ModelShape mha_untied(void)
{
    ModelShape shape = testing_hf_shape;
    shape.n_kv_heads = 4;
    shape.tied_head = false;
    shape.rope_theta = 500000.0;
    return shape;
}

// Saves, loads, compares; every weight within `relative` of itself (or absolutely, subnormals).
static void check_round_trip(const ModelShape *shape, DType dtype, int64_t max_shard_bytes,
                             const char *dir, double relative, double absolute)
{
    Model model, loaded;
    DType stored;
    testing_hf_random(&model, shape);
    assert_ok(hf_save_sharded(&model, NULL, dtype, dir, max_shard_bytes));
    assert_ok(hf_load(&loaded, dir));
    testing_hf_assert_same(&loaded.shape, shape);
    assert_int_equal(loaded.params.count, model.params.count);
    for (int64_t i = 0; i < model.params.count; i++) {
        double x = (double)model.params.flat[i], y = (double)loaded.params.flat[i];
        if (!(fabs(x - y) <= fmax(relative * fabs(x), absolute)))
            fail_msg("weight %d of %s: %a came back as %a", (int)i, dtype_name(dtype), x, y);
    }
    size_t n_pairs = (size_t)(shape->n_layers * shape->n_kv_heads * shape->rope_pairs);
    assert_memory_equal(loaded.rope_pairs, model.rope_pairs, n_pairs * sizeof(int32_t));
    assert_ok(hf_weights_dtype(&stored, dir));
    assert_int_equal(stored, dtype);
    model_release(&model);
    model_release(&loaded);
}

static void test_f32_round_trip_is_exact(void **state)
{
    (void)state;
    const ModelShape shapes[] = {testing_hf_shape, mha_untied(), testing_hf_mla(SVD_JOINT),
                                 testing_hf_mla(SVD_SPLIT)};
    char dir[PATH_BYTES];
    for (int i = 0; i < 4; i++) {
        testing_hf_new_dir(dir);
        check_round_trip(&shapes[i], DTYPE_F32, INT64_MAX, dir, 0, 0);
    }
}

static void test_half_round_trip_is_within_rounding(void **state)
{
    (void)state;
    const ModelShape shapes[] = {testing_hf_shape, testing_hf_mla(SVD_SPLIT)};
    char dir[PATH_BYTES];
    for (int i = 0; i < 2; i++) {
        testing_hf_new_dir(dir);
        check_round_trip(&shapes[i], DTYPE_BF16, INT64_MAX, dir, 0x1p-8, 0); // by definition
        testing_hf_new_dir(dir);
        check_round_trip(&shapes[i], DTYPE_F16, INT64_MAX, dir, 0x1p-11, 0x1p-25);
    }
}

static void test_sharded_round_trip_is_exact(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    testing_hf_new_dir(dir);
    ModelShape shape = testing_hf_mla(SVD_JOINT);
    check_round_trip(&shape, DTYPE_F32, 6000, dir, 0, 0);
    assert_true(file_exists(testing_path(dir, "model-00001-of-00007.safetensors")));
    assert_true(file_exists(testing_path(dir, "model-00007-of-00007.safetensors")));
    assert_false(file_exists(testing_path(dir, "model.safetensors")));
    // One file again in the same place, then shards again: no leftover may win.
    check_round_trip(&testing_hf_shape, DTYPE_F32, INT64_MAX, dir, 0, 0);
    assert_false(file_exists(testing_path(dir, "model.safetensors.index.json")));
    assert_false(file_exists(testing_path(dir, "model-00001-of-00007.safetensors")));
    check_round_trip(&shape, DTYPE_BF16, 6000, dir, 0x1p-8, 0);
    assert_false(file_exists(testing_path(dir, "model.safetensors")));
}

static void test_rope_pairs_load_alone(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    testing_hf_new_dir(dir);
    ModelShape shape = testing_hf_mla(SVD_JOINT);
    Model model;
    int32_t pairs[16];
    testing_hf_random(&model, &shape);
    assert_ok(hf_save(&model, NULL, DTYPE_F32, dir));
    assert_ok(hf_load_rope_pairs(pairs, &shape, dir));
    assert_memory_equal(pairs, model.rope_pairs, 8 * sizeof *pairs);
    model_release(&model);
    testing_hf_random(&model, &testing_hf_shape);
    assert_ok(hf_save(&model, NULL, DTYPE_F32, dir));
    assert_ok(hf_load_rope_pairs(pairs, &testing_hf_shape, dir));
    assert_memory_equal(pairs, ((int32_t[]){0, 1, 2, 3, 0, 1, 2, 3}), 8 * sizeof *pairs);
    model_release(&model);
}

static void test_weights_a_dtype_cannot_hold_are_not_written(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    testing_hf_new_dir(dir);
    testing_hf_random(&model, &testing_hf_shape);
    model.params.norm[3] = 65519.9f;
    assert_ok(hf_save(&model, NULL, DTYPE_F16, dir));
    model.params.norm[3] = -65520.0f;
    assert_fails(FAILED, "'model.norm.weight' has -65520 at row 3, column 0, which F16 cannot hold",
                 hf_save(&model, NULL, DTYPE_F16, dir));
    assert_ok(hf_save(&model, NULL, DTYPE_BF16, dir));
    model.params.norm[3] = 3.4e38f;
    assert_fails(FAILED, "which BF16 cannot hold", hf_save(&model, NULL, DTYPE_BF16, dir));
    model.params.layers[1].q[25] = NAN;
    assert_fails(FAILED, "self_attn.q_proj.weight' has nan at row 1, column 1",
                 hf_save(&model, NULL, DTYPE_F32, dir));
    model_release(&model);
    assert_ok(hf_load(&model, dir)); // what was there before the refusals
    model_release(&model);
}

// ---- models others wrote -----------------------------------------------------------------------

static void test_models_of_transformers_load(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t n_params; // counted with numpy over the files
    } models[] = {
        {"gqa_tied", 16800},    {"gqa_bf16", 23264},
        {"gqa_f16", 28752},     {"gqa_theta", 22208},
        {"mha_untied", 25720},  {"mqa_head_dim", 20592},
        {"mqa_sharded", 19360}, {"mla_gqa_2norm_joint", 17056},
    };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        char name[64];
        Model model;
        snprintf(name, sizeof name, "models/%s", models[i].name);
        assert_ok(hf_load(&model, testing_path(GOLDEN_DIR, name)));
        if (model.params.count != models[i].n_params)
            fail_msg("%s has %lld parameters", name, (long long)model.params.count);
        model_release(&model);
    }
}

static void test_shapes_of_transformers_configs(void **state)
{
    (void)state;
    ModelShape shape;
    assert_ok(hf_load_shape(&shape, GOLDEN_DIR "/models/gqa_theta")); // as transformers 5 writes
    assert_true(shape.rope_theta == 500000.0 && shape.rms_eps == 1e-6);
    assert_int_equal(shape.head_dim, 16);
    assert_ok(hf_load_shape(&shape, GOLDEN_DIR "/models/mha_untied"));
    assert_int_equal(shape.head_dim, 10);
    assert_false(shape.tied_head);
    assert_ok(hf_load_shape(&shape, GOLDEN_DIR "/models/mla_gqa_2norm_joint"));
    assert_int_equal(shape.d_kv, 8);
    assert_int_equal(shape.rope_pairs, 2);
}

static void check_stories(const char *asset, int64_t n_params)
{
    Model model;
    assert_ok(hf_load(&model, testing_asset(asset)));
    assert_int_equal(model.params.count, n_params);
    model_release(&model);
}

static void test_stories260k_loads(void **state)
{
    (void)state;
    check_stories("models/stories260K", 260032);
}

static void test_stories3m_loads(void **state)
{
    (void)state;
    check_stories("models/stories3M", 3148224);
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32_round_trip_is_exact),
        cmocka_unit_test(test_half_round_trip_is_within_rounding),
        cmocka_unit_test(test_sharded_round_trip_is_exact),
        cmocka_unit_test(test_rope_pairs_load_alone),
        cmocka_unit_test(test_weights_a_dtype_cannot_hold_are_not_written),
        cmocka_unit_test(test_models_of_transformers_load),
        cmocka_unit_test(test_shapes_of_transformers_configs),
        cmocka_unit_test(test_stories260k_loads),
        cmocka_unit_test(test_stories3m_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
