// Options of the commands that convert and the keys of a config that a run converts by: each has
// the other, with the same names of choices and the same default.
#include "tests/support/testing.h"

#include "train/cli/commands.h"
#include "train/config/config_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Options that a run has elsewhere; NULL: where it writes is not for a key to say.
static const struct {
    const char *option, *block, *key;
} elsewhere[] = {
    {"out", NULL, NULL},
    {"emulate", NULL, NULL}, // an option of train, too
    {"data", "data", "sources"},
    {"seq-len", "data", "seq_len"},
    {"seed", "run", "seed"},
    {"dtype", "run", "export_dtype"},
    {"compute", "train", "compute"},
};

enum { N_ELSEWHERE = sizeof elsewhere / sizeof elsewhere[0] };

// The option's key; NULL where there is none to look for.
static const Key *key_of(const Option *option, const char *block)
{
    char name[64];
    const char *within = block;
    snprintf(name, sizeof name, "%s", option->name);
    for (char *dash = name; (dash = strchr(dash, '-')) != NULL;)
        *dash = '_';
    for (int i = 0; i < N_ELSEWHERE; i++) {
        if (strcmp(option->name, elsewhere[i].option) != 0)
            continue;
        if (elsewhere[i].block == NULL)
            return NULL;
        within = elsewhere[i].block;
        snprintf(name, sizeof name, "%s", elsewhere[i].key);
    }
    const Key *key = key_find(within, name);
    if (key == NULL)
        fail_msg("--%s: there is no key %s.%s", option->name, within, name);
    return key;
}

static void check_default(const Option *option, const Key *key, const void *defaults)
{
    const char *value = (const char *)defaults + option->offset;
    if (key->standard == NULL || option->derived != NULL)
        return;
    if (option->kind == OPTION_INT)
        assert_int_equal(*(const int64_t *)(const void *)value, strtoll(key->standard, NULL, 10));
    else if (option->kind == OPTION_REAL || option->kind == OPTION_POSITIVE)
        assert_true(*(const double *)(const void *)value == strtod(key->standard, NULL));
    else if (option->kind == OPTION_CHOICE)
        assert_string_equal(option->choices[*(const int *)(const void *)value], key->standard);
    else if (option->kind == OPTION_FLAG)
        assert_string_equal(*(const bool *)value ? "true" : "false", key->standard);
}

static void check_options(const Command *command, const char *block, bool has_defaults)
{
    for (int i = 0; i < command->n_options; i++) {
        const Option *option = &command->options[i];
        const Key *key = key_of(option, block);
        if (key == NULL)
            continue;
        assert_true((option->kind == OPTION_CHOICE) == (key->kind == KEY_NAME));
        if (option->kind == OPTION_CHOICE)
            assert_ptr_equal(option->choices, key->names);
        if (has_defaults)
            check_default(option, key, command->defaults);
    }
}

// Every key of the block is an option of the command.
static void check_keys(const Command *command, const char *block)
{
    int n_keys = 0;
    for (int i = 0; i < n_config_keys; i++) {
        const char *name = key_name_in(&config_keys[i], block);
        bool is_found = false;
        if (name == NULL)
            continue;
        for (int o = 0; o < command->n_options; o++) {
            const Key *key = key_of(&command->options[o], block);
            is_found = is_found || key == &config_keys[i];
        }
        if (!is_found)
            fail_msg("%s: %s has no such option", config_keys[i].path, command->name);
        n_keys++;
    }
    assert_true(n_keys > 0);
}

static void test_convert(void **state)
{
    (void)state;
    check_options(&cmd_convert, "model.convert", true);
    check_keys(&cmd_convert, "model.convert");
}

// By itself it collects norms alone unless it is asked for more.
static void test_score(void **state)
{
    (void)state;
    check_options(&cmd_score, "model.convert", false);
}

static void test_distill(void **state)
{
    (void)state;
    check_options(&cmd_distill, "distill", true);
    check_keys(&cmd_distill, "distill");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convert),
        cmocka_unit_test(test_score),
        cmocka_unit_test(test_distill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
