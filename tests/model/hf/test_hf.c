#define _GNU_SOURCE // memmem
// Hugging Face directories: round trips of every kind of model, each refusal by its text, and
// models that other programs wrote.
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "model/hf/hf.h"
#include "model/hf/hf_weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const ModelShape gqa_tied = {
    .n_layers = 2,
    .d_model = 24,
    .n_heads = 4,
    .n_kv_heads = 2,
    .head_dim = 8,
    .d_ffn = 20,
    .vocab_size = 31,
    .max_positions = 64,
    .rope_pairs = 4,
    .tied_head = true,
    .rope_theta = 10000.0,
    .rms_eps = 1e-5,
};

static ModelShape mha_untied(void)
{
    ModelShape shape = gqa_tied;
    shape.n_kv_heads = 4;
    shape.tied_head = false;
    shape.rope_theta = 500000.0;
    return shape;
}

static ModelShape mla(SvdKind svd)
{
    ModelShape shape;
    assert_ok(shape_convert(&shape, &gqa_tied, 2, 6, svd));
    return shape;
}

static void create_random(Model *out, const ModelShape *shape)
{
    assert_ok(model_create(out, shape));
    testing_fill(out->params.flat, out->params.count, 0.1, 7);
    if (!shape_is_mla(shape))
        return;
    for (int row = 0; row < shape->n_layers * shape->n_kv_heads; row++) {
        out->rope_pairs[2 * row] = row % 2;
        out->rope_pairs[2 * row + 1] = 2 + row / 2 % 2;
    }
}

// A new directory below one that is removed at exit.
static const char *new_dir(void)
{
    static const char *root = NULL;
    static int n = 0;
    char name[16];
    if (root == NULL)
        root = testing_dir();
    snprintf(name, sizeof name, "d%d", n++);
    return testing_path(root, name);
}

static void copy_dir_name(char out[PATH_BYTES], const char *dir)
{
    snprintf(out, PATH_BYTES, "%s", dir);
}

static void assert_same_shape(const ModelShape *a, const ModelShape *b)
{
    assert_int_equal(a->n_layers, b->n_layers);
    assert_int_equal(a->d_model, b->d_model);
    assert_int_equal(a->n_heads, b->n_heads);
    assert_int_equal(a->n_kv_heads, b->n_kv_heads);
    assert_int_equal(a->head_dim, b->head_dim);
    assert_int_equal(a->d_ffn, b->d_ffn);
    assert_int_equal(a->vocab_size, b->vocab_size);
    assert_int_equal(a->max_positions, b->max_positions);
    assert_int_equal(a->rope_pairs, b->rope_pairs);
    assert_int_equal(a->d_kv, b->d_kv);
    assert_int_equal(a->svd, b->svd);
    assert_int_equal(a->tied_head, b->tied_head);
    assert_true(a->rope_theta == b->rope_theta && a->rms_eps == b->rms_eps);
}

// Saves, loads, compares; every weight within `relative` of itself (or absolutely, subnormals).
static void check_round_trip(const ModelShape *shape, DType dtype, int64_t max_shard_bytes,
                             const char *dir, double relative, double absolute)
{
    Model model, loaded;
    DType stored;
    create_random(&model, shape);
    assert_ok(hf_save_sharded(&model, NULL, dtype, dir, max_shard_bytes));
    assert_ok(hf_load(&loaded, dir));
    assert_same_shape(&loaded.shape, shape);
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
    const ModelShape shapes[] = {gqa_tied, mha_untied(), mla(SVD_JOINT), mla(SVD_SPLIT)};
    for (int i = 0; i < 4; i++)
        check_round_trip(&shapes[i], DTYPE_F32, INT64_MAX, new_dir(), 0, 0);
}

static void test_half_round_trip_is_within_rounding(void **state)
{
    (void)state;
    const ModelShape shapes[] = {gqa_tied, mla(SVD_SPLIT)};
    for (int i = 0; i < 2; i++) {
        check_round_trip(&shapes[i], DTYPE_BF16, INT64_MAX, new_dir(), 0x1p-8, 0); // by definition
        check_round_trip(&shapes[i], DTYPE_F16, INT64_MAX, new_dir(), 0x1p-11, 0x1p-25);
    }
}

static void test_sharded_round_trip_is_exact(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    copy_dir_name(dir, new_dir());
    ModelShape shape = mla(SVD_JOINT);
    check_round_trip(&shape, DTYPE_F32, 6000, dir, 0, 0);
    assert_true(file_exists(testing_path(dir, "model-00001-of-00007.safetensors")));
    assert_true(file_exists(testing_path(dir, "model-00007-of-00007.safetensors")));
    assert_false(file_exists(testing_path(dir, "model.safetensors")));
    // One file again in the same place, then shards again: no leftover may win.
    check_round_trip(&gqa_tied, DTYPE_F32, INT64_MAX, dir, 0, 0);
    assert_false(file_exists(testing_path(dir, "model.safetensors.index.json")));
    assert_false(file_exists(testing_path(dir, "model-00001-of-00007.safetensors")));
    check_round_trip(&shape, DTYPE_BF16, 6000, dir, 0x1p-8, 0);
    assert_false(file_exists(testing_path(dir, "model.safetensors")));
}

static void test_rope_pairs_load_alone(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    copy_dir_name(dir, new_dir());
    ModelShape shape = mla(SVD_JOINT);
    Model model;
    int32_t pairs[16];
    create_random(&model, &shape);
    assert_ok(hf_save(&model, NULL, DTYPE_F32, dir));
    assert_ok(hf_load_rope_pairs(pairs, &shape, dir));
    assert_memory_equal(pairs, model.rope_pairs, 8 * sizeof *pairs);
    model_release(&model);
    create_random(&model, &gqa_tied);
    assert_ok(hf_save(&model, NULL, DTYPE_F32, dir));
    assert_ok(hf_load_rope_pairs(pairs, &gqa_tied, dir));
    assert_memory_equal(pairs, ((int32_t[]){0, 1, 2, 3, 0, 1, 2, 3}), 8 * sizeof *pairs);
    model_release(&model);
}

// ---- config.json -------------------------------------------------------------------------------

static void save_sample(char dir[PATH_BYTES], const ModelShape *shape)
{
    Model model;
    copy_dir_name(dir, new_dir());
    create_random(&model, shape);
    assert_ok(hf_save(&model, NULL, DTYPE_F32, dir));
    model_release(&model);
}

static json_t *read_config(const char *dir)
{
    json_t *config;
    assert_ok(json_read(&config, testing_path(dir, "config.json")));
    return config;
}

static void write_config(const json_t *config, const char *dir)
{
    assert_int_equal(json_dump_file(config, testing_path(dir, "config.json"), 0), 0);
}

// Loads the shape of `config` with the members of the JSON object `changes` put over it; a member
// null in `changes` stays null.
static Status load_changed(ModelShape *out, const json_t *config, const char *changes,
                           const char *dir)
{
    json_t *changed = json_deep_copy(config), *over;
    assert_ok(json_parse(&over, changes, (int64_t)strlen(changes), "changes"));
    assert_int_equal(json_object_update(changed, over), 0);
    write_config(changed, dir);
    json_decref(changed);
    json_decref(over);
    return hf_load_shape(out, dir);
}

static void test_what_is_not_supported_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *changes, *text;
    } cases[] = {
        {"{\"model_type\":\"mistral\"}", "'model_type' is \"mistral\", supported is \"llama\""},
        {"{\"model_type\":7}", "'model_type' is 7"},
        {"{\"architectures\":[\"LlamaForSequenceClassification\"]}",
         "'architectures' is [\"LlamaForSequenceClassification\"]"},
        {"{\"architectures\":\"LlamaForCausalLM\"}", "'architectures' is \"LlamaForCausalLM\""},
        {"{\"architectures\":null,\"model_type\":null}", "neither 'model_type' nor"},
        {"{\"hidden_act\":\"gelu\"}", "'hidden_act' is \"gelu\", supported is \"silu\""},
        {"{\"attention_bias\":true}", "'attention_bias' is true"},
        {"{\"mlp_bias\":true}", "'mlp_bias' is true"},
        {"{\"sliding_window\":4096}", "'sliding_window' is 4096"},
        {"{\"quantization_config\":{\"bits\":4}}", "'quantization_config' is {\"bits\":4}"},
        {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}}", "'rope_scaling' is {\"type\""},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\"}}", "RoPE without scaling"},
        {"{\"rope_scaling\":2}", "'rope_scaling' is 2, supported is null"},
        {"{\"rope_parameters\":{\"rope_type\":\"yarn\"}}", "'rope_parameters' is"},
        {"{\"rope_parameters\":{\"full\":{\"rope_theta\":1e4}}}", "the same RoPE in every layer"},
        {"{\"partial_rotary_factor\":0.5}", "'partial_rotary_factor' is 0.5"},
        {"{\"rope_parameters\":{\"partial_rotary_factor\":0.25}}", "is 0.25, supported is 1.0"},
        {"{\"rope_scaling\":{\"factor\":2.0}}", "RoPE without scaling"},
        {"{\"rope_scaling\":{\"partial_rotary_factor\":0.5}}", "is 0.5, supported is 1.0"},
        {"{\"rope_scaling\":{\"rope_type\":\"default\",\"rope_theta\":5e5}}",
         "'rope_theta' is 10000.0, and 500000.0 in 'rope_scaling'; versions of transformers"},
        {"{\"rope_parameters\":{\"rope_theta\":5e5}}", "and 500000.0 in 'rope_parameters'"},
        {"{\"rope_scaling\":{\"type\":\"default\"},\"rope_parameters\":{\"rope_theta\":1e4}}",
         "'rope_scaling' and 'rope_parameters' differ; keep one"},
        {"{\"attention_chunk_size\":8192}", "'attention_chunk_size' is 8192"},
        {"{\"per_layer_config\":{\"0\":{\"num_key_value_heads\":1}}}", "'per_layer_config' is"},
        {"{\"layer_types\":[\"full_attention\",\"sliding_attention\"]}",
         "supported is \"full_attention\""},
        {"{\"pruned_heads\":{\"0\":[1]}}", "'pruned_heads' is {\"0\":[1]}"},
        {"{\"compression_config\":{\"format\":\"int8\"}}", "'compression_config' is"},
        {"{\"transformers_weights\":\"other.safetensors\"}", "'transformers_weights' is"},
        {"{\"is_causal\":false}", "'is_causal' is false, supported is true"},
        {"{\"loss_type\":\"ForMaskedLM\"}", "supported is \"ForCausalLM\""},
        {"{\"attn_logit_softcapping\":50.0}", "'attn_logit_softcapping' is 50.0"},
        {"{\"final_logit_softcapping\":30.0}", "'final_logit_softcapping' is 30.0"},
        {"{\"query_pre_attn_scalar\":256}", "'query_pre_attn_scalar' is 256"},
        {"{\"attention_multiplier\":0.015625}", "'attention_multiplier' is 0.015625"},
        {"{\"embedding_multiplier\":12}", "'embedding_multiplier' is 12, supported is 1.0"},
        {"{\"residual_multiplier\":0.22}", "'residual_multiplier' is 0.22, supported is 1.0"},
        {"{\"logits_scaling\":8.0}", "'logits_scaling' is 8.0, supported is 1.0"},
        {"{\"num_local_experts\":8}", "'num_local_experts' is 8"},
        {"{\"rope_theta\":0}", "'rope_theta' is 0"},
        {"{\"rms_norm_eps\":-1}", "'rms_norm_eps' is -1"},
        {"{\"rms_norm_eps\":0}", "'rms_norm_eps' is 0, allowed are 1e-12 to 1"},
        {"{\"tie_word_embeddings\":1}", "'tie_word_embeddings' is not true or false"},
        {"{\"hidden_size\":null}", "'hidden_size' is missing"},
        {"{\"hidden_size\":24.0}", "'hidden_size' is not a whole number"},
        {"{\"num_hidden_layers\":0}", "'num_hidden_layers' is 0, allowed are 1 to 1000"},
        {"{\"vocab_size\":9223372036854775807}", "'vocab_size' is 9223372036854775807"},
        {"{\"num_key_value_heads\":3}", "4 query heads do not divide among 3 KV heads"},
        {"{\"num_attention_heads\":5,\"num_key_value_heads\":5,\"head_dim\":null}",
         "'hidden_size' 24 does not divide among 5 heads"},
        {"{\"head_dim\":7}", "head width is 7"},
        {"{\"model_type\":\"mha2mla_llama\"}", "'mha2mla' is missing"},
        {"{\"mha2mla\":3}", "'mha2mla' is 3"},
        {"{\"mha2mla\":{\"rope_dim_for_mla\":4,\"low_rank\":4}}", "convert the original model"},
        {"{\"mha2mla\":{\"rope_pairs\":5,\"d_kv\":6,\"svd\":\"joint\"}}", "allowed are 1 to 4"},
        {"{\"mha2mla\":{\"rope_pairs\":2,\"d_kv\":600,\"svd\":\"joint\"}}", "d_kv is 600"},
        {"{\"mha2mla\":{\"rope_pairs\":2,\"d_kv\":6,\"svd\":\"qr\"}}", "'svd' is \"qr\""},
        {"{\"mha2mla\":{\"rope_pairs\":2,\"d_kv\":6,\"svd\":\"joint\",\"low_rank\":8}}",
         "'low_rank' is 8, but the other keys make it 6"},
        {"{\"mha2mla\":{\"rope_pairs\":2,\"d_kv\":6,\"svd\":\"joint\","
         "\"cache_numbers_per_token\":1}}",
         "'cache_numbers_per_token' is 1, but the other keys make it 40"},
        {"{\"mha2mla\":{\"rope_pairs\":2,\"d_kv\":6,\"svd\":\"joint\",\"healed_seq_len\":0}}",
         "'healed_seq_len' is 0, allowed are 1 to"},
    };
    char dir[PATH_BYTES];
    save_sample(dir, &gqa_tied);
    json_t *config = read_config(dir);
    ModelShape shape;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_fails(BAD_INPUT, cases[i].text, load_changed(&shape, config, cases[i].changes, dir));
    json_decref(config);
}

static void test_harmless_keys_and_defaults_are_accepted(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    ModelShape shape;
    save_sample(dir, &gqa_tied);
    json_t *config = read_config(dir);
    assert_ok(load_changed(&shape, config,
                           "{\"pretraining_tp\":2,\"sliding_window\":null,\"new_key\":[1],"
                           "\"rope_scaling\":{\"type\":\"default\"},\"quantization_config\":null,"
                           "\"embedding_multiplier\":1.0,\"logits_scaling\":1,\"pruned_heads\":{},"
                           "\"layer_types\":[\"full_attention\",\"full_attention\"],"
                           "\"is_causal\":true,\"attn_logit_softcapping\":null}",
                           dir));
    assert_same_shape(&shape, &gqa_tied);
    assert_ok(load_changed(&shape, config,
                           "{\"num_key_value_heads\":null,\"head_dim\":null,\"rope_theta\":null,"
                           "\"rms_norm_eps\":null,\"tie_word_embeddings\":null}",
                           dir));
    assert_int_equal(shape.n_kv_heads, 4);
    assert_int_equal(shape.head_dim, 6);
    assert_int_equal(shape.rope_pairs, 3);
    assert_true(shape.rope_theta == 10000.0 && shape.rms_eps == 1e-6 && !shape.tied_head);
    assert_ok(load_changed(&shape, config,
                           "{\"rope_parameters\":{\"rope_theta\":5e5,\"rope_type\":\"default\"},"
                           "\"rope_theta\":null}",
                           dir));
    assert_true(shape.rope_theta == 500000.0);
    assert_ok(load_changed(&shape, config,
                           "{\"rope_scaling\":{\"rope_theta\":5e5,\"rope_type\":\"default\"},"
                           "\"rope_theta\":null}",
                           dir));
    assert_true(shape.rope_theta ==
                500000.0); // transformers 5: loss 1.1383 with it, 0.7069 without
    assert_ok(load_changed(&shape, config,
                           "{\"rope_scaling\":{\"rope_theta\":1e4,\"type\":\"default\"}}", dir));
    assert_true(shape.rope_theta == 10000.0);
    json_decref(config);
}

static void test_saved_config_names_what_changed_and_keeps_the_rest(void **state)
{
    (void)state;
    char base[PATH_BYTES], dir[PATH_BYTES];
    ModelShape shape = mla(SVD_JOINT);
    Model model;
    save_sample(base, &gqa_tied);
    copy_dir_name(dir, new_dir());
    json_t *config = read_config(base), *got;
    json_object_set_new(config, "bos_token_id", json_integer(17));
    json_object_set_new(config, "dtype", json_string("float32"));
    write_config(config, base);
    create_random(&model, &shape);
    assert_ok(hf_save(&model, base, DTYPE_BF16, dir));
    got = read_config(dir);
    char *text = json_dumps(got, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(10));
    assert_string_equal(
        text, "{\"architectures\":[\"LlamaMlaForCausalLM\"],\"attention_bias\":false,"
              "\"bos_token_id\":17,\"dtype\":\"bfloat16\",\"head_dim\":8,\"hidden_act\":\"silu\","
              "\"hidden_size\":24,\"intermediate_size\":20,\"max_position_embeddings\":64,"
              "\"mha2mla\":{\"cache_numbers_per_token\":40,\"d_kv\":6,\"low_rank\":6,"
              "\"rope_dim_for_mla\":4,\"rope_pairs\":2,\"svd\":\"joint\"},\"mlp_bias\":false,"
              "\"model_type\":\"mha2mla_llama\",\"num_attention_heads\":4,\"num_hidden_layers\":2,"
              "\"num_key_value_heads\":2,\"rms_norm_eps\":1e-5,"
              "\"rope_scaling\":null,\"rope_theta\":10000.0,\"tie_word_embeddings\":true,"
              "\"torch_dtype\":\"bfloat16\",\"vocab_size\":31}");
    free(text);
    json_decref(got);
    json_decref(config);
    model_release(&model);
}

// A converted base that is trained again on shorter sequences keeps the longer length, and one that
// was never trained has none.
static void test_the_healing_length_is_the_longest(void **state)
{
    (void)state;
    char first[PATH_BYTES], second[PATH_BYTES];
    ModelShape shape = mla(SVD_JOINT), loaded;
    Model model;
    copy_dir_name(first, new_dir());
    copy_dir_name(second, new_dir());
    create_random(&model, &shape);
    assert_ok(hf_save(&model, NULL, DTYPE_F32, first));
    assert_ok(hf_load_shape(&loaded, first));
    assert_int_equal(loaded.healed_seq_len, 0);
    shape_set_healed(&model.shape, 32);
    assert_ok(hf_save(&model, NULL, DTYPE_F32, first));
    assert_ok(hf_load_shape(&loaded, first));
    assert_int_equal(loaded.healed_seq_len, 32);
    model.shape.healed_seq_len = 16;
    assert_ok(hf_save(&model, first, DTYPE_F32, second));
    assert_ok(hf_load_shape(&loaded, second));
    assert_int_equal(loaded.healed_seq_len, 32);
    model.shape.healed_seq_len = 48;
    assert_ok(hf_save(&model, first, DTYPE_F32, second));
    assert_ok(hf_load_shape(&loaded, second));
    assert_int_equal(loaded.healed_seq_len, 48);
    model_release(&model);
}

static void test_tokenizer_files_come_along(void **state)
{
    (void)state;
    char base[PATH_BYTES], dir[PATH_BYTES];
    Model model;
    save_sample(base, &gqa_tied);
    copy_dir_name(dir, new_dir());
    assert_ok(file_write(testing_path(base, "tokenizer.json"), "{}", 2));
    assert_ok(file_write(testing_path(base, "generation_config.json"), "[]", 2));
    create_random(&model, &gqa_tied);
    assert_ok(hf_save(&model, base, DTYPE_F32, dir));
    assert_true(file_exists(testing_path(dir, "tokenizer.json")));
    assert_true(file_exists(testing_path(dir, "generation_config.json")));
    assert_false(file_exists(testing_path(dir, "merges.txt")));
    model_release(&model);
}

static void test_saving_over_the_base_or_with_a_wrong_one_is_refused(void **state)
{
    (void)state;
    char base[PATH_BYTES], link[PATH_BYTES], dir[PATH_BYTES];
    Model model;
    ModelShape other = gqa_tied;
    other.d_ffn = 28;
    save_sample(base, &gqa_tied);
    copy_dir_name(link, new_dir());
    copy_dir_name(dir, new_dir());
    assert_int_equal(symlink(base, link), 0);
    create_random(&model, &other);
    assert_fails(BAD_INPUT, "is the base model's directory",
                 hf_save(&model, base, DTYPE_F32, link));
    assert_fails(BAD_INPUT, "'intermediate_size' is 20, the model to save has 28",
                 hf_save(&model, base, DTYPE_F32, dir));
    model_release(&model);
    other = gqa_tied;
    other.rope_theta = 12345.678; // the base's config.json would be kept with its own
    create_random(&model, &other);
    assert_fails(BAD_INPUT, "'rope_theta' is 10000, the model to save has 12345.678",
                 hf_save(&model, base, DTYPE_F32, dir));
    assert_false(file_exists(dir));
    model_release(&model);
    assert_ok(hf_load(&model, base));
    model_release(&model);
}

static void test_weights_a_dtype_cannot_hold_are_not_written(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    copy_dir_name(dir, new_dir());
    create_random(&model, &gqa_tied);
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

// ---- weights -----------------------------------------------------------------------------------

static void test_missing_files_are_named(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    assert_fails(BAD_INPUT, "/absent/model: not a directory",
                 hf_load(&model, testing_absent("model")));
    save_sample(dir, &gqa_tied);
    assert_int_equal(unlink(testing_path(dir, "model.safetensors")), 0);
    assert_fails(BAD_INPUT, "neither model.safetensors nor model.safetensors.index.json",
                 hf_load(&model, dir));
    assert_ok(file_write(testing_path(dir, "pytorch_model.bin"), "x", 1));
    assert_fails(BAD_INPUT, "pytorch_model.bin: not supported", hf_load(&model, dir));
    assert_int_equal(unlink(testing_path(dir, "config.json")), 0);
    assert_fails(BAD_INPUT, "config.json is missing", hf_load(&model, dir));
}

static void test_missing_tensors_are_listed(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    ModelShape shape = mla(SVD_JOINT);
    save_sample(dir, &gqa_tied);
    json_t *config = read_config(dir);
    json_object_set_new(config, "tie_word_embeddings", json_false());
    write_config(config, dir);
    assert_fails(BAD_INPUT, "missing in the weights: lm_head.weight; if the head is the embedding",
                 hf_load(&model, dir));
    json_object_set_new(config, "num_hidden_layers", json_integer(3));
    write_config(config, dir);
    assert_fails(BAD_INPUT,
                 "weights: model.layers.2.input_layernorm.weight, model.layers.2.self_attn.q_proj."
                 "weight, model.layers.2.self_attn.k_proj.weight and more",
                 hf_load(&model, dir));
    json_decref(config);
    save_sample(dir, &shape);
    config = read_config(dir);
    json_object_set_new(config, "num_key_value_heads", json_integer(4));
    json_object_del(json_object_get(config, "mha2mla"), "cache_numbers_per_token");
    write_config(config, dir);
    assert_fails(BAD_INPUT, "has shape [2, 2], expected is [4, 2]", hf_load(&model, dir));
    json_decref(config);
}

// Replaces one tensor of a saved model by others' bytes, found through the map's offset.
static void overwrite(const char *dir, const char *tensor, int64_t offset, const void *bytes,
                      size_t size)
{
    const char *path = testing_path(dir, "model.safetensors");
    SafeTensors file;
    assert_ok(safetensors_open(&file, path));
    const TensorInfo *info = safetensors_find(&file, tensor);
    assert_non_null(info);
    int64_t place = info->bytes - file.map.bytes + offset;
    safetensors_close(&file);
    FILE *stream = fopen(path, "r+b");
    assert_non_null(stream);
    assert_int_equal(fseeko(stream, (off_t)place, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
}

static void test_weights_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    const float bad[2] = {-INFINITY, NAN};
    save_sample(dir, &gqa_tied);
    overwrite(dir, "model.layers.1.mlp.down_proj.weight", 4 * (20 * 2 + 5), bad, sizeof bad);
    assert_fails(BAD_INPUT,
                 "tensor 'model.layers.1.mlp.down_proj.weight' has -inf at row 2, column 5",
                 hf_load(&model, dir));
}

static void test_rope_pairs_must_ascend_in_range(void **state)
{
    (void)state;
    static const struct {
        int32_t pairs[2];
        const char *text;
    } cases[] = {
        {{1, 1}, "has 1 at KV head 1, pair 1: pairs ascend from 0 to 3"},
        {{3, 2}, "has 2 at KV head 1, pair 1"},
        {{0, 4}, "has 4 at KV head 1, pair 1"},
        {{-1, 2}, "has -1 at KV head 1, pair 0"},
        {{INT32_MAX, 2}, "has 2147483647 at KV head 1, pair 0"},
    };
    char dir[PATH_BYTES];
    Model model;
    ModelShape shape = mla(SVD_JOINT);
    save_sample(dir, &shape);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        overwrite(dir, "model.layers.1.self_attn.rope_pairs", 8, cases[i].pairs, 8);
        assert_fails(BAD_INPUT, cases[i].text, hf_load(&model, dir));
    }
}

static void test_model_without_its_rope_pairs_is_refused(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    ModelShape shape = mla(SVD_JOINT);
    save_sample(dir, &shape);
    // A name of the same length in the header makes the tensor another one.
    FileMap map;
    const char *path = testing_path(dir, "model.safetensors");
    assert_ok(file_map(&map, path));
    char *bytes = malloc((size_t)map.size_bytes);
    assert_non_null(bytes);
    memcpy(bytes, map.bytes, (size_t)map.size_bytes);
    int64_t size = map.size_bytes;
    file_unmap(&map);
    char *name = memmem(bytes, (size_t)size, "layers.0.self_attn.rope_pairs", 29);
    assert_non_null(name);
    memcpy(name + 24, "quads", 5);
    assert_ok(file_write(path, bytes, size));
    free(bytes);
    assert_fails(BAD_INPUT, "'model.layers.0.self_attn.rope_pairs' is missing",
                 hf_load(&model, dir));
}

// ---- shards ------------------------------------------------------------------------------------

static void test_damaged_indexes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *index, *text;
    } cases[] = {
        {"{}", "'weight_map' is not an object"},
        {"[]", "'weight_map' is not an object"},
        {"{\"weight_map\":{\"a\":5}}", "'a' is not given the name of a file"},
        {"{\"weight_map\":{\"a\":\"../x\"}}", "'a' is not given the name of a file"},
        {"{\"weight_map\":{\"a\":\"x.safetensors\"}}", "x.safetensors: the file is missing; "},
        {"{\"weight_map\":{}}", "missing in the weights: model.embed_tokens.weight, "},
        {"{\"weight_map\":{\"model.embed_tokens.weight\":\"model-00002-of-00004.safetensors\"}}",
         "tensor 'model.embed_tokens.weight' is missing; model.safetensors.index.json says"},
    };
    char dir[PATH_BYTES];
    Model model;
    copy_dir_name(dir, new_dir());
    create_random(&model, &gqa_tied);
    assert_ok(hf_save_sharded(&model, NULL, DTYPE_F32, dir, 12000));
    model_release(&model);
    assert_true(file_exists(testing_path(dir, "model-00004-of-00004.safetensors")));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_ok(file_write(testing_path(dir, "model.safetensors.index.json"), cases[i].index,
                             (int64_t)strlen(cases[i].index)));
        assert_fails(BAD_INPUT, cases[i].text, hf_load(&model, dir));
    }
}

static void test_each_shard_is_mapped_once(void **state)
{
    (void)state;
    HfWeights weights;
    const SafeTensors *file;
    assert_ok(hf_weights_open(&weights, GOLDEN_DIR "/models/mqa_sharded"));
    assert_int_equal(weights.n_files, 3);
    assert_ok(hf_weights_find(&file, &weights, "lm_head.weight"));
    assert_non_null(strstr(file->path, "model-00003-of-00003.safetensors"));
    assert_ok(hf_weights_find(&file, &weights, "no.such"));
    assert_null(file);
    hf_weights_close(&weights);
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
        cmocka_unit_test(test_what_is_not_supported_is_refused_by_name),
        cmocka_unit_test(test_harmless_keys_and_defaults_are_accepted),
        cmocka_unit_test(test_saved_config_names_what_changed_and_keeps_the_rest),
        cmocka_unit_test(test_the_healing_length_is_the_longest),
        cmocka_unit_test(test_tokenizer_files_come_along),
        cmocka_unit_test(test_saving_over_the_base_or_with_a_wrong_one_is_refused),
        cmocka_unit_test(test_weights_a_dtype_cannot_hold_are_not_written),
        cmocka_unit_test(test_missing_files_are_named),
        cmocka_unit_test(test_missing_tensors_are_listed),
        cmocka_unit_test(test_weights_that_are_not_finite_are_refused),
        cmocka_unit_test(test_rope_pairs_must_ascend_in_range),
        cmocka_unit_test(test_model_without_its_rope_pairs_is_refused),
        cmocka_unit_test(test_damaged_indexes_are_refused),
        cmocka_unit_test(test_each_shard_is_mapped_once),
        cmocka_unit_test(test_models_of_transformers_load),
        cmocka_unit_test(test_shapes_of_transformers_configs),
        cmocka_unit_test(test_stories260k_loads),
        cmocka_unit_test(test_stories3m_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
