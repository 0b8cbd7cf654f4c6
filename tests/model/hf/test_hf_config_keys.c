// What a directory may say besides the shape: keys and token ids that are warned of, a stored head
// beside tie_word_embeddings, an adapter. Keys that are refused are in test_hf.c.
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/json.h"
#include "model/hf/hf.h"

#include <stdio.h>
#include <string.h>

static const ModelShape untied = {
    .n_layers = 1,
    .d_model = 16,
    .n_heads = 2,
    .n_kv_heads = 2,
    .head_dim = 8,
    .d_ffn = 8,
    .vocab_size = 31,
    .max_positions = 64,
    .rope_pairs = 4,
    .rope_theta = 10000.0,
    .rms_eps = 1e-5,
};

static char model_dir[PATH_BYTES]; // of the test that runs

// Saves a model and puts the members of the JSON object `changes` over its config.json.
static void save_changed(const Model *model, DType dtype, const char *changes)
{
    json_t *config, *over;
    snprintf(model_dir, sizeof model_dir, "%s", testing_dir());
    assert_ok(hf_save(model, NULL, dtype, model_dir));
    const char *path = testing_path(model_dir, "config.json");
    assert_ok(json_read(&config, path));
    assert_ok(json_parse(&over, changes, (int64_t)strlen(changes), "changes"));
    assert_int_equal(json_object_update(config, over), 0);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(over);
    json_decref(config);
}

static void create_random(Model *out)
{
    assert_ok(model_create(out, &untied));
    testing_fill(out->params.flat, out->params.count, 0.1, 7);
}

static void load(void)
{
    Model model;
    assert_ok(hf_load(&model, model_dir));
    model_release(&model);
}

// hf_load() says `expected`, with DIR for the directory; "": nothing.
static void check_said(const char *changes, const char *expected)
{
    char said[PATH_BYTES + 1024], wanted[PATH_BYTES + 1024] = "";
    Model model;
    create_random(&model);
    save_changed(&model, DTYPE_F32, changes);
    testing_capture(said, sizeof said, load);
    if (expected[0] != '\0')
        snprintf(wanted, sizeof wanted, "mha2mla: warning: %s/config.json: %s\n", model_dir,
                 expected);
    assert_string_equal(said, wanted);
    model_release(&model);
}

static void test_harmless_keys_are_silent(void **state)
{
    (void)state;
    check_said("{\"_name_or_path\":\"x\",\"torch_dtype\":\"bfloat16\",\"dtype\":\"float16\","
               "\"transformers_version\":\"4.57.3\",\"auto_map\":{\"a\":\"b\"},\"use_cache\":true,"
               "\"initializer_range\":0.02,\"attention_dropout\":0.1,\"pretraining_tp\":2,"
               "\"_attn_implementation_autoset\":true,\"rope_interleaved\":false,"
               "\"temperature\":0.6,\"never_heard\":null}",
               "");
}

static void test_unknown_keys_are_named(void **state)
{
    (void)state;
    check_said("{\"new_key\":[1]}", "'new_key': no key of a supported model, ignored");
    check_said("{\"a\":1,\"b\":2,\"c\":3,\"d\":4}",
               "'a', 'b', 'c' and more: no key of a supported model, ignored");
}

static void test_unknown_keys_of_rope_are_named(void **state)
{
    (void)state;
    check_said("{\"rope_scaling\":{\"rope_type\":\"default\",\"rope_theta\":10000.0,"
               "\"original_max_position_embeddings\":64,\"new\":null}}",
               "");
    check_said("{\"rope_scaling\":{\"rope_type\":\"default\",\"base\":500000}}",
               "'base': no key of 'rope_scaling', ignored");
    check_said("{\"rope_scaling\":null,\"rope_parameters\":{\"rope_type\":\"default\","
               "\"rope_theta\":10000.0,\"interleaved\":true}}",
               "'interleaved': no key of 'rope_parameters', ignored");
}

static void test_token_ids_beyond_the_vocabulary_are_named(void **state)
{
    (void)state;
    check_said("{\"bos_token_id\":30,\"eos_token_id\":[2,0],\"pad_token_id\":-1}", "");
    check_said("{\"bos_token_id\":31}",
               "'bos_token_id' is 31, the vocabulary has tokens 0 to 30; text generation with the "
               "model will fail");
    check_said("{\"eos_token_id\":[2,128009]}",
               "'eos_token_id' is [2,128009], the vocabulary has tokens 0 to 30; text generation "
               "with the model will fail");
}

// The model's vocabulary of 31 is padded: the tokenizer has 8 ids.
static void test_token_ids_beyond_the_tokenizer_are_named(void **state)
{
    (void)state;
    static const char tokenizer[] = "{\"model\":{\"vocab\":{\"a\":0,\"b\":6}},"
                                    "\"added_tokens\":[{\"id\":7,\"content\":\"<s>\"}]}";
    static const struct {
        const char *changes, *said;
    } cases[] = {
        {"{\"bos_token_id\":7,\"eos_token_id\":[0,6]}", ""},
        {"{\"bos_token_id\":8}", "'bos_token_id' is 8, the tokenizer has tokens 0 to 7; text "
                                 "generation with the model will fail"},
    };
    for (int i = 0; i < 2; i++) {
        char said[PATH_BYTES + 1024];
        Model model;
        create_random(&model);
        save_changed(&model, DTYPE_F32, cases[i].changes);
        model_release(&model);
        assert_ok(
            file_write(testing_path(model_dir, "tokenizer.json"), tokenizer, sizeof tokenizer - 1));
        testing_capture(said, sizeof said, load);
        if (strstr(said, cases[i].said) == NULL || (i == 0 && said[0] != '\0'))
            fail_msg("said '%s'", said);
    }
}

// transformers 5 leaves both matrices as they are stored: the loss is another than with one.
static void test_tied_head_may_be_stored_as_a_copy_alone(void **state)
{
    (void)state;
    static const char tied[] = "{\"tie_word_embeddings\":true}";
    static const char text[] = "'lm_head.weight' and 'model.embed_tokens.weight' are stored and "
                               "differ; set it to false in config.json to use both";
    const DType dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    const int64_t count = (int64_t)untied.vocab_size * untied.d_model;
    for (int i = 0; i < 3; i++) {
        Model model, loaded;
        HfSource *source;
        create_random(&model);
        memcpy(model.params.head, model.params.embed, (size_t)count * sizeof(float));
        save_changed(&model, dtypes[i], tied);
        assert_ok(hf_load(&loaded, model_dir));
        assert_ptr_equal(loaded.params.head, loaded.params.embed);
        model_release(&loaded);
        model.params.head[count - 1] += 1;
        save_changed(&model, dtypes[i], tied);
        assert_fails(BAD_INPUT, text, hf_load(&loaded, model_dir));
        assert_fails(BAD_INPUT, text, hf_source_open(&source, model_dir));
        save_changed(&model, dtypes[i], "{}"); // with tie_word_embeddings false
        load();
        model_release(&model);
    }
}

static void test_adapter_beside_the_weights_is_refused(void **state)
{
    (void)state;
    Model model;
    ModelShape shape;
    create_random(&model);
    save_changed(&model, DTYPE_F32, "{}");
    model_release(&model);
    assert_ok(file_write(testing_path(model_dir, "adapter_config.json"), "{}", 2));
    assert_fails(BAD_INPUT, "adapter_config.json: an adapter is not supported; merge it",
                 hf_load_shape(&shape, model_dir));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_harmless_keys_are_silent),
        cmocka_unit_test(test_unknown_keys_are_named),
        cmocka_unit_test(test_unknown_keys_of_rope_are_named),
        cmocka_unit_test(test_token_ids_beyond_the_vocabulary_are_named),
        cmocka_unit_test(test_token_ids_beyond_the_tokenizer_are_named),
        cmocka_unit_test(test_tied_head_may_be_stored_as_a_copy_alone),
        cmocka_unit_test(test_adapter_beside_the_weights_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
