// What a saved model has beside its weights for other programs: the Python files and auto_map of a
// converted one, and the tokens that begin and end a text in every file.
#include "tests/support/testing_hf.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

static const char tokenizer[] =
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"<pad>\":2},\"merges\":[]},"
    "\"added_tokens\":[{\"id\":3,\"content\":\"<s>\"},{\"id\":4,\"content\":\"</s>\"},"
    "{\"id\":5,\"content\":\"<|im_end|>\"}]}";

static void write_text(const char *dir, const char *name, const char *text)
{
    assert_ok(file_write(testing_path(dir, name), text, (int64_t)strlen(text)));
}

// Holds a file of a directory against JSON text, whatever the order of the keys.
static void assert_json(const char *dir, const char *name, const char *expected)
{
    json_t *got, *want;
    assert_ok(json_read(&got, testing_path(dir, name)));
    assert_ok(json_parse(&want, expected, (int64_t)strlen(expected), "expected"));
    char *text = json_dumps(got, JSON_COMPACT);
    if (!json_equal(got, want))
        fail_msg("%s: %s, expected %s", name, text, expected);
    free(text);
    json_decref(got);
    json_decref(want);
}

static void assert_ids(const char *dir, const char *bos, const char *eos)
{
    json_t *config = testing_hf_read_config(dir);
    char got[JSON_TEXT_BYTES];
    assert_string_equal(json_describe(got, json_object_get(config, "bos_token_id")), bos);
    assert_string_equal(json_describe(got, json_object_get(config, "eos_token_id")), eos);
    json_decref(config);
}

// A base with tokenizer.json and, over them, what the file of a name has.
static void make_base(char base[PATH_BYTES], const char *name, const char *text)
{
    testing_hf_save(base, &testing_hf_shape);
    json_t *config = testing_hf_read_config(base);
    json_object_del(config, "bos_token_id");
    json_object_del(config, "eos_token_id");
    testing_hf_write_config(config, base);
    json_decref(config);
    write_text(base, "tokenizer.json", tokenizer);
    if (name != NULL)
        write_text(base, name, text);
}

static void save_converted(char dir[PATH_BYTES], const char *base)
{
    ModelShape shape = testing_hf_mla(SVD_JOINT);
    Model model;
    testing_hf_random(&model, &shape);
    testing_hf_new_dir(dir);
    assert_ok(hf_save(&model, base, DTYPE_F32, dir));
    model_release(&model);
}

static void assert_same_file(const char *dir, const char *name)
{
    char source[PATH_BYTES];
    FileMap got, want;
    snprintf(source, sizeof source, GOLDEN_DIR "/../../model/hf/python/%s", name);
    assert_ok(file_map(&got, testing_path(dir, name)));
    assert_ok(file_map(&want, source));
    assert_int_equal(got.size_bytes, want.size_bytes);
    assert_memory_equal(got.bytes, want.bytes, (size_t)got.size_bytes);
    file_unmap(&got);
    file_unmap(&want);
}

static void test_a_converted_model_has_its_code(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    ModelShape shape;
    save_converted(dir, NULL);
    assert_same_file(dir, "configuration_mha2mla.py");
    assert_same_file(dir, "modeling_mha2mla.py");
    json_t *config = testing_hf_read_config(dir);
    const json_t *map = json_object_get(config, "auto_map");
    assert_string_equal(json_string_value(json_object_get(map, "AutoConfig")),
                        "configuration_mha2mla.Mha2mlaConfig");
    assert_string_equal(json_string_value(json_object_get(map, "AutoModelForCausalLM")),
                        "modeling_mha2mla.Mha2mlaForCausalLM");
    json_object_set_new(config, "architectures", json_pack("[s]", "LlamaMlaForCausalLM"));
    testing_hf_write_config(config, dir); // of an earlier version, without the code
    assert_ok(hf_load_shape(&shape, dir));
    json_decref(config);
}

static void test_a_plain_model_has_none(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    save_converted(dir, NULL);
    testing_hf_random(&model, &testing_hf_shape);
    assert_ok(hf_save(&model, NULL, DTYPE_F32, dir)); // over a converted one
    assert_false(file_exists(testing_path(dir, "configuration_mha2mla.py")));
    assert_false(file_exists(testing_path(dir, "modeling_mha2mla.py")));
    json_t *config = testing_hf_read_config(dir);
    assert_null(json_object_get(config, "auto_map"));
    json_decref(config);
    model_release(&model);
}

static void test_ids_come_from_the_first_that_says_them(void **state)
{
    (void)state;
    char base[PATH_BYTES], dir[PATH_BYTES];
    make_base(base, NULL, NULL);
    save_converted(dir, base);
    assert_ids(dir, "3", "4"); // added tokens of the usual texts
    assert_json(dir, "generation_config.json", "{\"bos_token_id\":3,\"eos_token_id\":4}");

    make_base(base, "tokenizer_config.json",
              "{\"bos_token\":null,\"eos_token\":{\"content\":\"<|im_end|>\"}}");
    save_converted(dir, base);
    assert_ids(dir, "3", "5");
    assert_json(dir, "tokenizer_config.json",
                "{\"bos_token\":null,\"eos_token\":{\"content\":\"<|im_end|>\"}}");

    make_base(base, "generation_config.json", "{\"eos_token_id\":[5,2],\"top_p\":0.5}");
    save_converted(dir, base);
    assert_ids(dir, "3", "[5,2]");
    assert_json(dir, "generation_config.json",
                "{\"eos_token_id\":[5,2],\"top_p\":0.5,\"bos_token_id\":3}");

    make_base(base, "special_tokens_map.json", "{\"bos_token\":\"a\"}");
    save_converted(dir, base);
    assert_ids(dir, "0", "4");
}

// config.json's own ids stay, also where generation_config.json has others.
static void test_ids_that_are_there_stay(void **state)
{
    (void)state;
    char base[PATH_BYTES], dir[PATH_BYTES];
    make_base(base, "generation_config.json", "{\"eos_token_id\":5}");
    json_t *config = testing_hf_read_config(base);
    json_object_set_new(config, "eos_token_id", json_integer(1));
    testing_hf_write_config(config, base);
    json_decref(config);
    save_converted(dir, base);
    assert_ids(dir, "3", "1");
    assert_json(dir, "generation_config.json", "{\"eos_token_id\":5,\"bos_token_id\":3}");
}

static void test_the_tokenizers_config_is_made_or_completed(void **state)
{
    (void)state;
    static const char made[] =
        "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"model_max_length\":64,"
        "\"clean_up_tokenization_spaces\":false,\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}";
    char base[PATH_BYTES], dir[PATH_BYTES];
    make_base(base, NULL, NULL);
    save_converted(dir, base);
    assert_json(dir, "tokenizer_config.json", made);
    make_base(base, "tokenizer_config.json", "{\"model_max_length\":9}");
    save_converted(dir, base);
    assert_json(dir, "tokenizer_config.json", "{\"model_max_length\":9,\"eos_token\":\"</s>\"}");
    make_base(base, "tokenizer_config.json", "[1]"); // not what it should be
    save_converted(dir, base);
    assert_json(dir, "tokenizer_config.json", "[1]");
    assert_ids(dir, "3", "4");
}

static void test_without_any_the_ids_are_null(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    save_converted(dir, NULL);
    assert_ids(dir, "null", "null");
    assert_false(file_exists(testing_path(dir, "generation_config.json")));
    assert_false(file_exists(testing_path(dir, "tokenizer_config.json")));
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_converted_model_has_its_code),
        cmocka_unit_test(test_a_plain_model_has_none),
        cmocka_unit_test(test_ids_come_from_the_first_that_says_them),
        cmocka_unit_test(test_ids_that_are_there_stay),
        cmocka_unit_test(test_the_tokenizers_config_is_made_or_completed),
        cmocka_unit_test(test_without_any_the_ids_are_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
