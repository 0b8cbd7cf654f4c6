// config.json: each refusal by its text, defaults, what a save keeps of the base's and what it puts
// beside it.
#include "tests/support/testing_hf.h"

#include "base/log.h"
#include "model/shape_fields.h"
#include "tests/support/testing_golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Loads the shape of `config` with the members of the JSON object `changes` put over it; a member
// null in `changes` stays null.
static Status load_changed(ModelShape *out, const json_t *config, const char *changes,
                           const char *dir)
{
    json_t *changed = json_deep_copy(config), *over;
    assert_ok(json_parse(&over, changes, (int64_t)strlen(changes), "changes"));
    assert_int_equal(json_object_update(changed, over), 0);
    testing_hf_write_config(changed, dir);
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
        {"{\"model_type\":\"gemma\"}", "'model_type' is \"gemma\", supported is \"llama\", "},
        {"{\"model_type\":\"mistral\"}", "'architectures' is [\"LlamaForCausalLM\"], supported is"},
        {"{\"model_type\":7}", "'model_type' is 7"},
        {"{\"architectures\":[\"LlamaForSequenceClassification\"]}",
         "'architectures' is [\"LlamaForSequenceClassification\"]"},
        {"{\"architectures\":\"LlamaForCausalLM\"}", "'architectures' is \"LlamaForCausalLM\""},
        {"{\"architectures\":null,\"model_type\":null}", "neither 'model_type' nor"},
        {"{\"hidden_act\":\"gelu\"}", "'hidden_act' is \"gelu\", supported is \"silu\""},
        {"{\"attention_bias\":1}", "'attention_bias' is not true or false"},
        {"{\"qkv_bias\":true}", "'qkv_bias' is true, supported is a model without it"},
        {"{\"mlp_bias\":true}", "'mlp_bias' is true"},
        {"{\"sliding_window\":4096}", "'sliding_window' is 4096"},
        {"{\"quantization_config\":{\"bits\":4}}", "'quantization_config' is {\"bits\":4}"},
        {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}}",
         "rope_scaling: 'type' is \"linear\", supported is \"default\" (no scaling) or \"llama3\""},
        {"{\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2.0}}", "is \"dynamic\""},
        {"{\"rope_scaling\":{\"rope_type\":\"longrope\"}}", "is \"longrope\""},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\"}}", "rope_scaling: 'factor' is missing"},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
         "\"high_freq_factor\":4}}",
         "'original_max_position_embeddings' is missing"},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
         "\"high_freq_factor\":4,\"original_max_position_embeddings\":16}}",
         "high_freq_factor of RoPE is 4, not above low_freq_factor 4"},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":0.5,\"low_freq_factor\":1,"
         "\"high_freq_factor\":4,\"original_max_position_embeddings\":16}}",
         "RoPE is scaled by factor 0.5"},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
         "\"high_freq_factor\":4,\"original_max_position_embeddings\":16},"
         "\"original_max_position_embeddings\":32}",
         "'original_max_position_embeddings' is 32, and 16 in the object of RoPE"},
        {"{\"rope_scaling\":2}", "'rope_scaling' is 2, supported is null"},
        {"{\"rope_parameters\":{\"rope_type\":\"yarn\"}}", "'rope_type' is \"yarn\""},
        {"{\"rope_parameters\":{\"full\":{\"rope_theta\":1e4}}}", "the same RoPE in every layer"},
        {"{\"partial_rotary_factor\":0.5}", "'partial_rotary_factor' is 0.5"},
        {"{\"rope_parameters\":{\"partial_rotary_factor\":0.25}}", "is 0.25, supported is 1.0"},
        {"{\"rope_scaling\":{\"factor\":2.0}}", "'factor' is 2.0, supported is 1.0 without"},
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
        {"{\"model_type\":\"mha2mla_llama\",\"architectures\":null}", "'mha2mla' is missing"},
        {"{\"mha2mla\":3}", "'mha2mla' is 3"},
        {"{\"mha2mla\":{\"rope_dim_for_mla\":4,\"low_rank\":4}}",
         "MHA2MLA v1.2; make one of this program of it by mha2mla import"},
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
    testing_hf_save(dir, &testing_hf_shape);
    json_t *config = testing_hf_read_config(dir);
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
    testing_hf_save(dir, &testing_hf_shape);
    json_t *config = testing_hf_read_config(dir);
    assert_ok(load_changed(&shape, config,
                           "{\"pretraining_tp\":2,\"sliding_window\":null,\"new_key\":[1],"
                           "\"rope_scaling\":{\"type\":\"default\"},\"quantization_config\":null,"
                           "\"embedding_multiplier\":1.0,\"logits_scaling\":1,\"pruned_heads\":{},"
                           "\"layer_types\":[\"full_attention\",\"full_attention\"],"
                           "\"is_causal\":true,\"attn_logit_softcapping\":null}",
                           dir));
    testing_hf_assert_same(&shape, &testing_hf_shape);
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
    ModelShape shape = testing_hf_mla(SVD_JOINT);
    Model model;
    testing_hf_save(base, &testing_hf_shape);
    testing_hf_new_dir(dir);
    json_t *config = testing_hf_read_config(base), *got;
    json_object_set_new(config, "bos_token_id", json_integer(17));
    json_object_set_new(config, "dtype", json_string("float32"));
    testing_hf_write_config(config, base);
    testing_hf_random(&model, &shape);
    assert_ok(hf_save(&model, base, DTYPE_BF16, dir));
    got = testing_hf_read_config(dir);
    char *text = json_dumps(got, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(10));
    assert_string_equal(
        text, "{\"architectures\":[\"Mha2mlaForCausalLM\"],\"attention_bias\":false,"
              "\"auto_map\":{\"AutoConfig\":\"configuration_mha2mla.Mha2mlaConfig\","
              "\"AutoModelForCausalLM\":\"modeling_mha2mla.Mha2mlaForCausalLM\"},"
              "\"bos_token_id\":17,\"dtype\":\"bfloat16\",\"eos_token_id\":null,"
              "\"head_dim\":8,\"hidden_act\":\"silu\","
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

// The golden models of each architecture, and what of them the shape says.
static void test_every_architecture_is_read(void **state)
{
    (void)state;
    ModelShape shape;
    assert_ok(hf_load_shape(&shape, testing_path(GOLDEN_DIR, "models/llama3")));
    const RopeScaling *scaling = &shape.rope_scaling;
    assert_true(scaling->factor == 8 && scaling->low_freq_factor == 1 &&
                scaling->high_freq_factor == 4 && scaling->original_positions == 64);
    assert_ok(hf_load_shape(&shape, testing_path(GOLDEN_DIR, "models/mistral")));
    assert_int_equal(shape.sliding_window, 19);
    assert_fails(BAD_INPUT, "--seq-len is 20, more than sliding_window 19 of m",
                 shape_check_length(&shape, 20, "--seq-len", "m"));
    assert_ok(shape_check_length(&shape, 19, "--seq-len", "m"));
    assert_ok(hf_load_shape(&shape, testing_path(GOLDEN_DIR, "models/qwen2")));
    assert_int_equal(shape.attention_bias, BIAS_QKV);
    assert_ok(hf_load_shape(&shape, testing_path(GOLDEN_DIR, "models/llama_bias")));
    assert_int_equal(shape.attention_bias, BIAS_QKV_OUT);
}

// An architecture's model and its conversion are read back as they were written.
static void test_every_architecture_is_written_back(void **state)
{
    (void)state;
    for (int i = 0; golden_architectures[i] != NULL; i++) {
        char base[PATH_BYTES], dir[PATH_BYTES], below[PATH_BYTES];
        snprintf(below, sizeof below, "models/%s", golden_architectures[i]);
        snprintf(base, sizeof base, "%s", testing_path(GOLDEN_DIR, below));
        testing_hf_new_dir(dir);
        Model original, mla;
        ModelShape shape;
        assert_ok(hf_load(&original, base));
        assert_ok(hf_save(&original, base, DTYPE_F32, dir));
        json_t *was = testing_hf_read_config(base), *is = testing_hf_read_config(dir);
        json_object_del(is, "dtype"), json_object_del(is, "torch_dtype");
        json_object_del(was, "dtype"), json_object_del(was, "torch_dtype");
        assert_true(json_equal(was, is));
        json_decref(was), json_decref(is);

        assert_ok(shape_convert(&shape, &original.shape, 1, 4, SVD_JOINT));
        assert_ok(model_create(&mla, &shape));
        assert_ok(hf_save(&mla, base, DTYPE_F32, dir));
        assert_ok(hf_load_shape(&shape, dir));
        is = testing_hf_read_config(dir);
        assert_null(json_object_get(is, "layer_types"));
        assert_null(json_object_get(is, "rope_parameters")); // transformers 4 does not read it
        const json_t *theta = json_object_get(is, "rope_theta");
        assert_true(json_number_value(theta) == original.shape.rope_theta);
        json_decref(is);
        for (int f = 0; f < N_SHAPE_FIELDS; f++)
            assert_true(shape_field_is_same(&shape_fields[f], &shape, &mla.shape));
        model_release(&original);
        model_release(&mla);
    }
}

// What keys that other architectures have mean: an absent window is Mistral's own, null is none.
static void test_windows_of_architectures(void **state)
{
    (void)state;
    static const struct {
        const char *model, *changes;
        int window;
    } cases[] = {
        {"mistral", "{\"sliding_window\":null}", 0},
        {"mistral", "{\"sliding_window\":64}", 64},
        {"mistral", NULL, 4096},
        {"qwen2", "{}", 0},
        {"qwen2", "{\"use_sliding_window\":null}", 0},
        {"qwen2", "{\"use_sliding_window\":true}", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char dir[PATH_BYTES], below[64];
        ModelShape shape;
        testing_hf_new_dir(dir);
        assert_ok(file_make_dirs(dir));
        snprintf(below, sizeof below, "models/%s", cases[i].model);
        json_t *config = testing_hf_read_config(testing_path(GOLDEN_DIR, below));
        if (cases[i].changes == NULL)
            json_object_del(config, "sliding_window");
        assert_ok(
            load_changed(&shape, config, cases[i].changes == NULL ? "{}" : cases[i].changes, dir));
        assert_int_equal(shape.sliding_window, cases[i].window);
        json_decref(config);
    }
}

// An absent number of KV heads is the class's own, null is that of the query heads.
static void test_absent_keys_of_architectures(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    ModelShape shape;
    testing_hf_new_dir(dir);
    assert_ok(file_make_dirs(dir));
    json_t *config = testing_hf_read_config(testing_path(GOLDEN_DIR, "models/mistral"));
    assert_ok(load_changed(&shape, config, "{\"num_key_value_heads\":null}", dir));
    assert_int_equal(shape.n_kv_heads, 4);
    json_object_del(config, "num_key_value_heads");
    json_object_del(config, "max_position_embeddings");
    assert_ok(load_changed(&shape, config, "{\"num_attention_heads\":16}", dir));
    assert_int_equal(shape.n_kv_heads, 8);
    assert_int_equal(shape.max_positions, 131072);
    json_decref(config);
}

static void assert_layers(const ModelShape *shape, const char *expected)
{
    char text[SHAPE_TEXT_BYTES];
    assert_string_equal(shape_field_format(text, &shape_fields[SHAPE_NO_ROPE], shape), expected);
}

// A list, or every n-th layer without RoPE; SmolLM3's own n is 4, other architectures have none.
static void test_layers_without_rope(void **state)
{
    (void)state;
    static const struct {
        const char *changes, *layers;
    } cases[] = {
        {"{}", "011"},
        {"{\"no_rope_layers\":[1,0,0,1,1]}", "100"},
        {"{\"no_rope_layers\":null}", "111"},
        {"{\"no_rope_layers\":null,\"num_hidden_layers\":9}", "111011101"},
        {"{\"no_rope_layers\":null,\"no_rope_layer_interval\":2}", "101"},
        {"{\"no_rope_layers\":null,\"no_rope_layer_interval\":1}", "000"},
    };
    static const struct {
        const char *changes, *text;
    } refused[] = {
        {"{\"no_rope_layers\":[1,0]}", "'no_rope_layers' is a list of 2 numbers, the model has 3"},
        {"{\"no_rope_layers\":[1,2,0]}", "'no_rope_layers' is 2 for layer 1, allowed are 0 and 1"},
        {"{\"no_rope_layers\":4}", "'no_rope_layers' is 4, allowed is a list of 0 and 1"},
        {"{\"no_rope_layers\":null,\"no_rope_layer_interval\":0}", "interval' is 0, allowed are 1"},
        {"{\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", "'layer_types' is"},
        {"{\"mlp_bias\":true}", "'mlp_bias' is true"},
        {"{\"model_type\":\"llama\",\"architectures\":null}", "'no_rope_layers' is [0"},
    };
    char dir[PATH_BYTES];
    ModelShape shape;
    testing_hf_new_dir(dir);
    assert_ok(file_make_dirs(dir));
    json_t *config = testing_hf_read_config(testing_path(GOLDEN_DIR, "models/smollm3"));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_ok(load_changed(&shape, config, cases[i].changes, dir));
        assert_layers(&shape, cases[i].layers);
    }
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        assert_fails(BAD_INPUT, refused[i].text,
                     load_changed(&shape, config, refused[i].changes, dir));
    json_object_del(config, "rope_theta");
    json_object_del(config, "tie_word_embeddings");
    assert_ok(load_changed(&shape, config, "{}", dir));
    assert_true(shape.rope_theta == 2e6 && shape.tied_head);
    json_decref(config);
    config = testing_hf_read_config(testing_path(GOLDEN_DIR, "models/gqa_tied"));
    assert_ok(load_changed(&shape, config, "{}", dir));
    assert_layers(&shape, "11");
    json_decref(config);
}

// A converted base that is trained again on shorter sequences keeps the longer length, and one that
// was never trained has none.
static void test_the_healing_length_is_the_longest(void **state)
{
    (void)state;
    char first[PATH_BYTES], second[PATH_BYTES];
    ModelShape shape = testing_hf_mla(SVD_JOINT), loaded;
    Model model;
    testing_hf_new_dir(first);
    testing_hf_new_dir(second);
    testing_hf_random(&model, &shape);
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
    testing_hf_save(base, &testing_hf_shape);
    testing_hf_new_dir(dir);
    assert_ok(file_write(testing_path(base, "tokenizer.json"), "{}", 2));
    assert_ok(file_write(testing_path(base, "generation_config.json"), "[]", 2));
    testing_hf_random(&model, &testing_hf_shape);
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
    ModelShape other = testing_hf_shape;
    other.d_ffn = 28;
    testing_hf_save(base, &testing_hf_shape);
    testing_hf_new_dir(link);
    testing_hf_new_dir(dir);
    assert_int_equal(symlink(base, link), 0);
    testing_hf_random(&model, &other);
    assert_fails(BAD_INPUT, "is the base model's directory",
                 hf_save(&model, base, DTYPE_F32, link));
    assert_fails(BAD_INPUT, "'intermediate_size' is 20, the model to save has 28",
                 hf_save(&model, base, DTYPE_F32, dir));
    model_release(&model);
    other = testing_hf_shape;
    other.rope_theta = 12345.678; // the base's config.json would be kept with its own
    testing_hf_random(&model, &other);
    assert_fails(BAD_INPUT, "'rope_theta' is 10000, the model to save has 12345.678",
                 hf_save(&model, base, DTYPE_F32, dir));
    assert_false(file_exists(dir));
    model_release(&model);
    assert_ok(hf_load(&model, base));
    model_release(&model);
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_not_supported_is_refused_by_name),
        cmocka_unit_test(test_harmless_keys_and_defaults_are_accepted),
        cmocka_unit_test(test_saved_config_names_what_changed_and_keeps_the_rest),
        cmocka_unit_test(test_every_architecture_is_read),
        cmocka_unit_test(test_every_architecture_is_written_back),
        cmocka_unit_test(test_windows_of_architectures),
        cmocka_unit_test(test_absent_keys_of_architectures),
        cmocka_unit_test(test_layers_without_rope),
        cmocka_unit_test(test_the_healing_length_is_the_longest),
        cmocka_unit_test(test_tokenizer_files_come_along),
        cmocka_unit_test(test_saving_over_the_base_or_with_a_wrong_one_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
