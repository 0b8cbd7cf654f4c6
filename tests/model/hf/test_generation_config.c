// model/hf/generation_config: the tokens that end and begin a text, from the two files that say it.
#include "tests/support/testing.h"

#include "base/file.h"
#include "model/hf/generation_config.h"

#include <string.h>

static Status load(GenerationConfig *out, const char *generation, const char *config)
{
    const char *dir = testing_dir();
    const char *texts[] = {generation, config};
    const char *names[] = {"generation_config.json", "config.json"};
    for (int i = 0; i < 2; i++)
        if (texts[i] != NULL)
            assert_ok(file_write(testing_path(dir, names[i]), texts[i], (int64_t)strlen(texts[i])));
    return generation_config_load(out, dir, 100, 42);
}

static void test_a_number_or_a_list(void **state)
{
    (void)state;
    GenerationConfig config;
    assert_ok(load(&config, "{\"eos_token_id\": [7, 9], \"bos_token_id\": 3}",
                   "{\"eos_token_id\": 2, \"bos_token_id\": 1}"));
    assert_int_equal(config.n_end_ids, 2);
    assert_int_equal(config.end_ids[0], 7);
    assert_int_equal(config.end_ids[1], 9);
    assert_int_equal(config.begin_id, 3);
    assert_ok(
        load(&config, "{\"eos_token_id\": 99}", "{\"eos_token_id\": 2, \"bos_token_id\": 0}"));
    assert_int_equal(config.n_end_ids, 1);
    assert_int_equal(config.end_ids[0], 99);
    assert_int_equal(config.begin_id, 0);
}

static void test_what_a_file_does_not_say_is_the_others(void **state)
{
    (void)state;
    GenerationConfig config;
    assert_ok(load(&config, NULL, "{\"eos_token_id\": 2}"));
    assert_int_equal(config.n_end_ids, 1);
    assert_int_equal(config.end_ids[0], 2);
    assert_int_equal(config.begin_id, -1);
    assert_ok(load(&config, "{\"eos_token_id\": null}", "{\"eos_token_id\": [4]}"));
    assert_int_equal(config.end_ids[0], 4);
    assert_ok(load(&config, NULL, "{}"));
    assert_int_equal(config.n_end_ids, 1); // the tokenizer's
    assert_int_equal(config.end_ids[0], 42);
}

static void test_ids_are_checked(void **state)
{
    (void)state;
    GenerationConfig config;
    assert_fails(BAD_INPUT,
                 "generation_config.json: 'eos_token_id' has 100, allowed are token ids, "
                 "0 to 99",
                 load(&config, "{\"eos_token_id\": [1, 100]}", "{}"));
    assert_fails(BAD_INPUT, "config.json: 'eos_token_id' has \"</s>\"",
                 load(&config, NULL, "{\"eos_token_id\": \"</s>\"}"));
    assert_fails(BAD_INPUT, "'bos_token_id' has -1", load(&config, NULL, "{\"bos_token_id\": -1}"));
    assert_fails(BAD_INPUT, "'eos_token_id' has 33 ids, allowed are 32",
                 load(&config, NULL,
                      "{\"eos_token_id\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
                      "1,1,1,1,1,1]}"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_number_or_a_list),
        cmocka_unit_test(test_what_a_file_does_not_say_is_the_others),
        cmocka_unit_test(test_ids_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
