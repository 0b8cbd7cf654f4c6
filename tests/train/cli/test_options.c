// train/options: the forms an option can have, its checks, "did you mean", --help.
#define _GNU_SOURCE
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/suggest.h"
#include "train/cli/options.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static Status run_nothing(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return OK;
}

static const Command command = {"pack", "packs files", "--out FILE [FILE...]",
                                "mha2mla pack --out a.h5 b.txt", run_nothing};

typedef struct Values {
    const char *out;
    int64_t eos, seq_len;
    bool force;
} Values;

// Parses the words after the subcommand's name, given as one text "word|word|word".
static Status parse(Values *values, Arguments *rest, const char *words)
{
    static char name[] = "pack", text[512], *argv[32];
    snprintf(text, sizeof text, "%s", words);
    int argc = 0;
    argv[argc++] = name;
    for (char *tail = text; tail != NULL;)
        argv[argc++] = strsep(&tail, "|");
    *values = (Values){.eos = -1, .seq_len = 2048};
    const Option options[] = {
        {"out", OPTION_STRING, &values->out, "FILE", "file to write", .required = true},
        {"eos", OPTION_INT, &values->eos, "ID", "token after each document", .least = 0,
         .most = 65535},
        {"seq-len", OPTION_INT, &values->seq_len, "T", "tokens of a sequence", .least = 1,
         .most = INT64_MAX},
        {"force", OPTION_FLAG, &values->force, NULL, .help = "write over an old file"},
    };
    return options_parse(rest, &command, options, 4, argc, argv);
}

static void test_both_forms_of_a_value(void **state)
{
    (void)state;
    Values v;
    Arguments rest;
    assert_ok(parse(&v, &rest, "--out|a.h5|--eos=7|--force"));
    assert_string_equal(v.out, "a.h5");
    assert_int_equal(v.eos, 7);
    assert_true(v.force);
    assert_int_equal(v.seq_len, 2048);
    assert_int_equal(rest.n_words, 0);
    assert_false(rest.help_shown);
}

static void test_words_keep_their_order_between_options(void **state)
{
    (void)state;
    Values v;
    Arguments rest;
    assert_ok(parse(&v, &rest, "a|--out|o=1|-|--eos|3|b|--|--force"));
    assert_int_equal(rest.n_words, 4);
    assert_string_equal(rest.words[0], "a");
    assert_string_equal(rest.words[1], "-");
    assert_string_equal(rest.words[2], "b");
    assert_string_equal(rest.words[3], "--force");
    assert_false(v.force);
    assert_string_equal(v.out, "o=1");
}

static void test_last_of_a_repeated_option_counts(void **state)
{
    (void)state;
    Values v;
    Arguments rest;
    assert_ok(parse(&v, &rest, "--out=a|--out=b"));
    assert_string_equal(v.out, "b");
}

static void test_unknown_option_names_the_nearest(void **state)
{
    (void)state;
    Values v;
    Arguments rest;
    assert_fails(BAD_INPUT, "pack: unknown option --seq_len=4; did you mean --seq-len?",
                 parse(&v, &rest, "--out=a|--seq_len=4"));
    assert_fails(BAD_INPUT, "unknown option --ot; did you mean --out?", parse(&v, &rest, "--ot|a"));
    assert_fails(BAD_INPUT, "unknown option -out; did you mean --out?", parse(&v, &rest, "-out|a"));
    assert_fails(BAD_INPUT, "unknown option --outs=a; did you mean --out?",
                 parse(&v, &rest, "--outs=a"));
    assert_fails(BAD_INPUT, "unknown option --tokenizer; see mha2mla pack --help",
                 parse(&v, &rest, "--tokenizer"));
    assert_fails(BAD_INPUT, "unknown option ---; see", parse(&v, &rest, "---"));
    assert_fails(BAD_INPUT, "unknown option --=3; see", parse(&v, &rest, "--=3"));
}

static void test_missing_values_and_options_are_named(void **state)
{
    (void)state;
    Values v;
    Arguments rest;
    assert_fails(BAD_INPUT, "--out FILE is missing", parse(&v, &rest, "a"));
    assert_fails(BAD_INPUT, "--out needs a value", parse(&v, &rest, "--out"));
    assert_fails(BAD_INPUT, "--out needs a value", parse(&v, &rest, "--out|--force"));
    assert_fails(BAD_INPUT, "--out is empty", parse(&v, &rest, "--out="));
    assert_fails(BAD_INPUT, "--force takes no value, 'yes' was given",
                 parse(&v, &rest, "--out=a|--force=yes"));
}

static const char *eos_words(const char *value)
{
    static char words[64];
    snprintf(words, sizeof words, "--out=a|--eos|%s", value);
    return words;
}

static void test_numbers_are_checked(void **state)
{
    (void)state;
    const char *wrong[] = {"4x", "x4", " 4", "4 ", "+4", "4.0", "-"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        Values v;
        Arguments rest;
        assert_fails(BAD_INPUT, "which is not a whole number",
                     parse(&v, &rest, eos_words(wrong[i])));
    }
    const char *outside[] = {"-1", "65536", "9223372036854775808", "-99999999999999999999"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        Values v;
        Arguments rest;
        assert_fails(BAD_INPUT, ", allowed are 0 to 65535",
                     parse(&v, &rest, eos_words(outside[i])));
    }
}

static void test_help_shows_every_option_and_the_example(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "help.txt");
    fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    assert_non_null(freopen(path, "w", stdout));
    Values v;
    Arguments rest;
    Status status = parse(&v, &rest, "--eos=3|--bad|--help");
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    assert_int_equal(status, OK);
    assert_true(rest.help_shown);
    FileMap map;
    assert_ok(file_map(&map, path));
    const char expected[] = "usage: mha2mla pack --out FILE [FILE...]\n\npacks files\n\nOptions:\n"
                            "  --out FILE   file to write (required)\n"
                            "  --eos ID     token after each document\n"
                            "  --seq-len T  tokens of a sequence (default 2048)\n"
                            "  --force      write over an old file\n"
                            "  --help       show this text\n\n"
                            "Example:\n  mha2mla pack --out a.h5 b.txt\n";
    assert_int_equal(map.size_bytes, sizeof expected - 1);
    assert_memory_equal(map.bytes, expected, sizeof expected - 1);
    file_unmap(&map);
}

static void test_nearest_is_the_closest_or_none(void **state)
{
    (void)state;
    const char *const keys[] = {"lr", "min_lr", "beta1", "beta2", "warmup_steps"};
    assert_string_equal(suggest_nearest("minlr", keys, 5), "min_lr");
    assert_string_equal(suggest_nearest("beat2", keys, 5), "beta2"); // swapped neighbours: one slip
    assert_string_equal(suggest_nearest("warmup", keys, 5), "warmup_steps");
    assert_null(suggest_nearest("momentum", keys, 5));
    assert_null(suggest_nearest("", keys, 5));
    assert_null(suggest_nearest("lr", keys, 0));
    char endless[10000];
    memset(endless, 'a', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    assert_null(suggest_nearest(endless, keys, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_forms_of_a_value),
        cmocka_unit_test(test_words_keep_their_order_between_options),
        cmocka_unit_test(test_last_of_a_repeated_option_counts),
        cmocka_unit_test(test_unknown_option_names_the_nearest),
        cmocka_unit_test(test_missing_values_and_options_are_named),
        cmocka_unit_test(test_numbers_are_checked),
        cmocka_unit_test(test_help_shows_every_option_and_the_example),
        cmocka_unit_test(test_nearest_is_the_closest_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
