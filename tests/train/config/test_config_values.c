// train/config/config_values: every value of a config once, as text, with what it has an effect on.
#include "tests/support/testing.h"

#include "base/file.h"
#include "train/config/config.h"
#include "train/config/config_table.h"
#include "train/config/config_values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char yaml[] = "model: {base: m, convert: {rope_pairs: 4, d_kv: 16}}\n"
                           "data:\n"
                           "  sources:\n"
                           "    - {name: a, shards: [a1.h5, 'a 2.h5'], weight: 0.7}\n"
                           "    - {name: b, shards: b.h5, weight: 0.3}\n"
                           "optim: {lr: 1.0e-3}\n"
                           "train: {steps: 10, global_batch: 4}\n";

static void list(ConfigValues *out, int n_overrides, char *const *overrides)
{
    const char *path = testing_path(testing_dir(), "x.yaml");
    Config config;
    assert_ok(file_write(path, yaml, (int64_t)strlen(yaml)));
    assert_ok(config_load(&config, path, overrides, n_overrides));
    assert_ok(config_values_list(out, &config));
    config_release(&config);
}

// The text of a key, or NULL where the list does not have it.
static const char *text_of(const ConfigValues *values, const char *key)
{
    for (int i = 0; i < values->n; i++)
        if (strcmp(values->items[i].key, key) == 0)
            return values->items[i].text;
    return NULL;
}

static void test_values_are_text_by_key(void **state)
{
    (void)state;
    ConfigValues v;
    list(&v, 0, NULL);
    assert_string_equal(text_of(&v, "run.name"), "x");
    assert_string_equal(text_of(&v, "run.seed"), "42");
    assert_string_equal(text_of(&v, "model.convert.rope"), "2-norm");
    assert_string_equal(text_of(&v, "data.sources[0].shards"), "[a1.h5, 'a 2.h5']");
    assert_string_equal(text_of(&v, "data.sources[1].name"), "b");
    assert_string_equal(text_of(&v, "data.sources[1].weight"), "0.3");
    assert_string_equal(text_of(&v, "optim.lr"), "0.001");
    assert_string_equal(text_of(&v, "train.sum_groups"), "4"); // resolved
    assert_string_equal(text_of(&v, "train.overlap"), "true");
    assert_null(text_of(&v, "data.validation.every")); // no such block
    assert_null(text_of(&v, "model.convert.scores"));
    assert_null(text_of(&v, "optim"));
    assert_null(text_of(&v, "optim.decay_start")); // there is no decay
    for (int i = 0; i < v.n; i++) {
        for (int j = 0; j < i; j++)
            assert_string_not_equal(v.items[i].key, v.items[j].key);
    }
    config_values_release(&v);
}

// The last digit of a double, an item more, a block: each makes the lists unequal.
static void test_each_difference_is_seen(void **state)
{
    (void)state;
    char lr[] = "--optim.lr=0.0010000000000000002", convert[] = "--model.convert=none";
    char decay[] = "--optim.decay_steps=3";
    ConfigValues v;
    list(&v, 3, (char *[]){lr, convert, decay});
    assert_string_equal(text_of(&v, "optim.decay_start"), "7");
    assert_string_equal(text_of(&v, "optim.lr"), "0.0010000000000000002");
    assert_null(text_of(&v, "model.convert.d_kv"));
    config_values_release(&v);
}

static void test_effects_are_the_tables(void **state)
{
    (void)state;
    ConfigValues v;
    list(&v, 0, NULL);
    for (int i = 0; i < v.n; i++)
        assert_int_equal(v.items[i].effect, config_key_effect(v.items[i].key));
    config_values_release(&v);
    assert_int_equal(config_key_effect("optim.lr"), EFFECT_RESULT);
    assert_int_equal(config_key_effect("data.sources[17].weight"), EFFECT_RESULT);
    assert_int_equal(config_key_effect("train.sum_groups"), EFFECT_ROUNDING);
    assert_int_equal(config_key_effect("log.every"), EFFECT_NONE);
    assert_int_equal(config_key_effect("of.another.version"), EFFECT_RESULT);
}

static void test_paths_are_marked(void **state)
{
    (void)state;
    static const char *const paths[] = {"run.dir", "model.base", "data.sources[0].shards",
                                        "data.sources[1].shards"};
    ConfigValues v;
    int n = 0;
    list(&v, 0, NULL);
    for (int i = 0; i < v.n; i++)
        if (v.items[i].is_path) {
            assert_in_range(n, 0, 3);
            assert_string_equal(v.items[i].key, paths[n++]);
        }
    assert_int_equal(n, 4);
    config_values_release(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_are_text_by_key),
        cmocka_unit_test(test_each_difference_is_seen),
        cmocka_unit_test(test_effects_are_the_tables),
        cmocka_unit_test(test_paths_are_marked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
