// The forms an option can have, the checks of options and words, "did you mean", --help.
#define _GNU_SOURCE // strsep
#include "tests/support/testing.h"

#include "base/suggest.h"
#include "train/cli/command/help.h"
#include "train/cli/command/options.h"

#include <stdio.h>
#include <string.h>

typedef struct PackOptions {
    const char *out;
    int64_t eos, seq_len;
    double ratio, speed;
    int mode;
    bool force, list;
    const char *label;
    OptionTexts skip;
} PackOptions;

static const PackOptions defaults = {.eos = -1, .seq_len = 2048, .ratio = 0.5, .mode = 1};

static const char *const modes[] = {"fast", "small", NULL};

static const Option table[] = {
    {"out", OPTION_TEXT, offsetof(PackOptions, out), "FILE", "file to write", .required = true},
    {"eos", OPTION_INT, offsetof(PackOptions, eos), "ID", "token after each document", 0, 65535},
    {"seq-len", OPTION_INT, offsetof(PackOptions, seq_len), "T", "tokens of a sequence", 1,
     INT64_MAX},
    {"ratio", OPTION_REAL, offsetof(PackOptions, ratio), "R", "wanted size", 0, 2},
    {"speed", OPTION_POSITIVE, offsetof(PackOptions, speed), "MB/S", "of the disk", .max = 100,
     .derived = "measured"},
    {"mode", OPTION_CHOICE, offsetof(PackOptions, mode), "MODE",
     "a help text that is long enough to be continued on a second line", .choices = modes},
    {"force", OPTION_FLAG, offsetof(PackOptions, force), NULL, "write over an old file"},
    {"list", OPTION_FLAG, offsetof(PackOptions, list), NULL, "show what is known",
     .is_query = true},
    {"label", OPTION_TEXT, offsetof(PackOptions, label), "TEXT", "name of the pack", .letter = 'l',
     .may_be_empty = true},
    {"skip", OPTION_TEXTS, offsetof(PackOptions, skip), "NAME", "leave this out", .letter = 's'},
};

static Status run_nothing(const CommandLine *line)
{
    (void)line;
    return OK;
}

static const Command pack = {
    .name = "pack",
    .summary = "pack files",
    COMMAND_OPTIONS(PackOptions, table, defaults),
    .words = {"FILE", 0, INT_MAX, ANY_FILE},
    .takes_overrides = true,
    .examples = (const char *const[]){"mha2mla pack --out a.h5 b.txt", NULL},
    .run = run_nothing,
};

// Splits the words after the subcommand's name, given as one text "word|word|word".
static char **split(int *argc, const char *words)
{
    static char name[] = "pack", text[512], *argv[48];
    snprintf(text, sizeof text, "%s", words);
    *argc = 0;
    argv[(*argc)++] = name;
    for (char *tail = text; tail != NULL;)
        argv[(*argc)++] = strsep(&tail, "|");
    return argv;
}

static Status parse(PackOptions *values, CommandLine *line, const char *words)
{
    int argc;
    char **argv = split(&argc, words);
    return options_parse(line, values, &pack, argc, argv);
}

// For what must fail: nothing is left to release.
static Status parse_bad(const char *words)
{
    PackOptions values;
    CommandLine line;
    return parse(&values, &line, words);
}

static void test_both_forms_of_a_value(void **state)
{
    (void)state;
    PackOptions v;
    CommandLine line;
    assert_ok(parse(&v, &line, "--out|a.h5|--eos=7|--force|--mode|fast|--ratio=0|--speed|1e-3"));
    assert_ptr_equal(line.options, &v);
    assert_string_equal(v.out, "a.h5");
    assert_int_equal(v.eos, 7);
    assert_true(v.force);
    assert_int_equal(v.mode, 0);
    assert_true(v.ratio == 0);
    assert_true(v.speed == 1e-3);
    assert_int_equal(v.seq_len, 2048);
    assert_int_equal(line.n_words, 0);
    options_release(&line);
}

static void test_words_keep_their_order_between_options(void **state)
{
    (void)state;
    PackOptions v;
    CommandLine line;
    assert_ok(parse(&v, &line, "a|--out|o=1|-|--eos|3|b|--|--force"));
    assert_int_equal(line.n_words, 4);
    assert_string_equal(line.words[0], "a");
    assert_string_equal(line.words[1], "-");
    assert_string_equal(line.words[2], "b");
    assert_string_equal(line.words[3], "--force");
    assert_false(v.force);
    assert_string_equal(v.out, "o=1");
    options_release(&line);
}

static void test_overrides_are_kept_apart_in_order(void **state)
{
    (void)state;
    PackOptions v;
    CommandLine line;
    assert_ok(parse(&v, &line, "--optim.lr=1|x.yaml|--out=a.b|--force|--a.b=|--|--c.d=1"));
    assert_int_equal(line.n_overrides, 2);
    assert_string_equal(line.overrides[0], "--optim.lr=1");
    assert_string_equal(line.overrides[1], "--a.b=");
    assert_int_equal(line.n_words, 2);
    assert_string_equal(line.words[0], "x.yaml");
    assert_string_equal(line.words[1], "--c.d=1");
    assert_string_equal(v.out, "a.b"); // the dot is in its value
    options_release(&line);
    assert_fails(BAD_INPUT, "pack: --optim.lr has no value; write --optim.lr=5e-4",
                 parse(&v, &line, "--optim.lr|5e-4"));
    Command plain = pack;
    plain.takes_overrides = false;
    int argc;
    char **argv = split(&argc, "--out=a|--optim.lr=1");
    assert_fails(BAD_INPUT, "pack: unknown option --optim.lr=1; see mha2mla pack --help",
                 options_parse(&line, &v, &plain, argc, argv));
}

static void test_last_of_a_repeated_option_counts(void **state)
{
    (void)state;
    PackOptions v;
    CommandLine line;
    assert_ok(parse(&v, &line, "--out=a|--out=b"));
    assert_string_equal(v.out, "b");
    options_release(&line);
}

static void test_letters_and_repeated_texts(void **state)
{
    (void)state;
    PackOptions v;
    CommandLine line;
    assert_ok(parse(&v, &line, "--out=a|-l||-s|x|-|--skip=y z|-s|-q"));
    assert_string_equal(v.label, "");
    assert_int_equal(v.skip.n, 3);
    assert_string_equal(v.skip.items[0], "x");
    assert_string_equal(v.skip.items[1], "y z");
    assert_string_equal(v.skip.items[2], "-q");
    assert_int_equal(line.n_words, 1);
    options_release(&line);
    assert_fails(BAD_INPUT, "pack: --label needs a value", parse_bad("--out=a|-l"));
    assert_fails(BAD_INPUT, "pack: --skip is empty", parse_bad("--out=a|-s|"));
    assert_fails(BAD_INPUT, "pack: unknown option -sx", parse_bad("--out=a|-sx|1"));
    assert_fails(BAD_INPUT, "pack: unknown option -s=x", parse_bad("--out=a|-s=x"));
    assert_fails(BAD_INPUT, "pack: --skip is given more than 16 times",
                 parse_bad("-s|1|-s|2|-s|3|-s|4|-s|5|-s|6|-s|7|-s|8|-s|9|-s|10|-s|11|-s|12|-s|13|"
                           "-s|14|-s|15|-s|16|-s|17"));
}

static void test_unknown_option_names_the_nearest(void **state)
{
    (void)state;
    assert_fails(BAD_INPUT, "pack: unknown option --seq_len=4; did you mean --seq-len?",
                 parse_bad("--out=a|--seq_len=4"));
    assert_fails(BAD_INPUT, "unknown option --ot; did you mean --out?", parse_bad("--ot|a"));
    assert_fails(BAD_INPUT, "unknown option -out; did you mean --out?", parse_bad("-out|a"));
    assert_fails(BAD_INPUT, "unknown option --outs=a; did you mean --out?", parse_bad("--outs=a"));
    assert_fails(BAD_INPUT, "unknown option --tokenizer; see mha2mla pack --help",
                 parse_bad("--tokenizer"));
    assert_fails(BAD_INPUT, "unknown option ---; see", parse_bad("---"));
    assert_fails(BAD_INPUT, "unknown option --=3; see", parse_bad("--=3"));
}

static void test_missing_values_and_options_are_named(void **state)
{
    (void)state;
    assert_fails(BAD_INPUT, "--out FILE is missing", parse_bad("a"));
    assert_fails(BAD_INPUT, "--out needs a value", parse_bad("--out"));
    assert_fails(BAD_INPUT, "--out needs a value", parse_bad("--out|--force"));
    assert_fails(BAD_INPUT, "--out is empty", parse_bad("--out="));
    assert_fails(BAD_INPUT, "--force takes no value, 'yes' was given",
                 parse_bad("--out=a|--force=yes"));
}

static void test_a_query_needs_nothing_else(void **state)
{
    (void)state;
    PackOptions v;
    CommandLine line;
    assert_ok(parse(&v, &line, "--list"));
    assert_true(v.list);
    assert_null(v.out);
    options_release(&line);
}

// The number of words a command takes, and what too few or too many are told.
static void test_words_are_counted(void **state)
{
    (void)state;
    const struct {
        Words words;
        const char *given, *expected; // NULL: allowed
    } cases[] = {
        {{"FILE", 1, 1}, "--out=a|x", NULL},
        {{"FILE", 1, 1}, "--out=a", "pack needs one FILE, got 0; see mha2mla pack --help"},
        {{"FILE", 1, 1}, "--out=a|x|y", "pack needs one FILE, got 2"},
        {{"FILE", 1, INT_MAX}, "--out=a", "pack needs at least one FILE; see"},
        {{"FILE", 1, INT_MAX}, "--out=a|x|y|z", NULL},
        {{"FILE", 0, 1}, "--out=a", NULL},
        {{"FILE", 0, 1}, "--out=a|x|y", "pack takes one FILE at most, got 2"},
        {{0}, "--out=a", NULL},
        {{0}, "--out=a|x", "pack takes no arguments, 'x' was given"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        PackOptions v;
        CommandLine line;
        Command counted = pack;
        counted.words = cases[i].words;
        int argc;
        char **argv = split(&argc, cases[i].given);
        const Status status = options_parse(&line, &v, &counted, argc, argv);
        if (cases[i].expected == NULL) {
            assert_ok(status);
            options_release(&line);
        } else {
            assert_fails(BAD_INPUT, cases[i].expected, status);
        }
    }
}

static Status parse_value(const char *option, const char *value)
{
    char words[64];
    snprintf(words, sizeof words, "--out=a|--%s|%s", option, value);
    return parse_bad(words);
}

static void test_numbers_and_choices_are_checked(void **state)
{
    (void)state;
    const char *wrong[] = {"4x", "x4", " 4", "4 ", "+4", "4.0", "-"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_fails(BAD_INPUT, "which is not a whole number", parse_value("eos", wrong[i]));
    assert_fails(BAD_INPUT, "pack: --eos is '2.0', which is not a whole number; write it as 2",
                 parse_value("eos", "2.0"));
    assert_fails(BAD_INPUT, "which is not a whole number; write it as 1000",
                 parse_value("eos", "1e3"));
    assert_fails(BAD_INPUT, "which is not a whole number; write it as 10000",
                 parse_value("eos", "10_000"));
    assert_fails(BAD_INPUT, "which is not a whole number; it takes digits alone",
                 parse_value("eos", "4k"));
    const char *outside[] = {"-1", "65536", "9223372036854775808", "-99999999999999999999"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        assert_fails(BAD_INPUT, ", allowed are 0 to 65535", parse_value("eos", outside[i]));
    const char *no_number[] = {"x", "nan", "inf", "0x1", "1 "};
    for (size_t i = 0; i < sizeof no_number / sizeof *no_number; i++)
        assert_fails(BAD_INPUT, "which is not a number such as 0.5 or 5e-1",
                     parse_value("ratio", no_number[i]));
    assert_fails(BAD_INPUT, "pack: --ratio is -1, allowed are 0 to 2", parse_value("ratio", "-1"));
    assert_fails(BAD_INPUT, "allowed are 0 to 2", parse_value("ratio", "2.1"));
    assert_fails(BAD_INPUT, "pack: --speed is 0, allowed is more than 0, at most 100",
                 parse_value("speed", "0"));
    assert_fails(BAD_INPUT, "at most 100", parse_value("speed", "1e9"));
    assert_fails(BAD_INPUT, "pack: --mode is 'slow', allowed are fast, small",
                 parse_value("mode", "slow"));
}

static void test_help_is_wanted_before_two_dashes(void **state)
{
    (void)state;
    int argc;
    char **argv = split(&argc, "--eos=3|--bad|--help");
    assert_true(options_ask_for_help(argc, argv));
    argv = split(&argc, "-h");
    assert_true(options_ask_for_help(argc, argv));
    argv = split(&argc, "a|--|--help");
    assert_false(options_ask_for_help(argc, argv));
}

static void test_help_shows_every_option_and_the_example(void **state)
{
    (void)state;
    char text[4096] = "";
    FILE *out = fmemopen(text, sizeof text, "w");
    assert_non_null(out);
    help_print_command(out, &pack);
    fclose(out);
    assert_string_equal(
        text, "usage: mha2mla pack [FILE...] --out FILE [--eos ID] [--seq-len T] [--ratio R]\n"
              "           [--speed MB/S] [--mode MODE] [--force] [--list] [--label TEXT]\n"
              "           [--skip NAME] [--section.key=value ...]\n"
              "\nPack files.\n\nOptions:\n"
              "  --out FILE           file to write (required)\n"
              "  --eos ID             token after each document (0 to 65535)\n"
              "  --seq-len T          tokens of a sequence (at least 1; default 2048)\n"
              "  --ratio R            wanted size (0 to 2; default 0.5)\n"
              "  --speed MB/S         of the disk (more than 0, at most 100; default: measured)\n"
              "  --mode MODE          a help text that is long enough to be continued on a\n"
              "                       second line (one of fast, small; default small)\n"
              "  --force              write over an old file\n"
              "  --list               show what is known\n"
              "  -l, --label TEXT     name of the pack\n"
              "  -s, --skip NAME      leave this out (may be repeated)\n"
              "  --section.key=value  set a key of CONFIG; train --help-config lists all keys\n"
              "  --help               show this text\n"
              "\nExample:\n  mha2mla pack --out a.h5 b.txt\n");
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
        cmocka_unit_test(test_overrides_are_kept_apart_in_order),
        cmocka_unit_test(test_last_of_a_repeated_option_counts),
        cmocka_unit_test(test_letters_and_repeated_texts),
        cmocka_unit_test(test_unknown_option_names_the_nearest),
        cmocka_unit_test(test_missing_values_and_options_are_named),
        cmocka_unit_test(test_a_query_needs_nothing_else),
        cmocka_unit_test(test_words_are_counted),
        cmocka_unit_test(test_numbers_and_choices_are_checked),
        cmocka_unit_test(test_help_is_wanted_before_two_dashes),
        cmocka_unit_test(test_help_shows_every_option_and_the_example),
        cmocka_unit_test(test_nearest_is_the_closest_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
