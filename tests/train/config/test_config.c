// train/config: reading, overrides, every kind of error, writing back.
#define _GNU_SOURCE
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "train/config/config.h"
#include "train/config/config_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOURCES "data: {sources: [{name: s, shards: [a.h5]}]}\n"
#define TRAIN   "train: {steps: 10, global_batch: 4}\n"
#define BASE    "model: {base: m}\n"
#define CONVERT "model: {base: m, convert: {rope_pairs: 4, d_kv: 16}}\n"
#define INIT                                                                                       \
    "model: {init: {hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2,\n"               \
    "  num_attention_heads: 4, vocab_size: 100}}\n"

// Loads a text as the file "x.yaml" of a directory of its own; messages name it by its full path.
static Status load(Config *config, const char *text, int n_overrides, char *const *overrides)
{
    static char dir[PATH_BYTES];
    if (dir[0] == '\0')
        strcpy(dir, testing_dir());
    const char *path = testing_path(dir, "x.yaml");
    FILE *file = fopen(path, "w"); // file_write() would wait for the disk each time
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    return config_load(config, path, overrides, n_overrides);
}

static Status load_with(Config *config, const char *text, const char *override)
{
    char word[512];
    snprintf(word, sizeof word, "%s", override);
    return load(config, text, 1, (char *[]){word});
}

static void test_defaults_are_filled(void **state)
{
    (void)state;
    Config c;
    assert_ok(load(&c, BASE SOURCES TRAIN, 0, NULL));
    assert_string_equal(c.run.name, "x");
    assert_string_equal(c.run.dir, "runs");
    assert_int_equal(c.run.seed, 42);
    assert_int_equal(c.run.export_dtype, DTYPE_F32);
    assert_string_equal(c.model.base, "m");
    assert_false(c.model.init.given || c.model.convert.given || c.data.validation.given);
    assert_int_equal(c.data.seq_len, 2048);
    assert_int_equal(c.data.n_sources, 1);
    assert_true(c.data.sources[0].weight == 1.0);
    assert_true(c.optim.schedule.lr == 1e-4 && c.optim.schedule.min_lr == 0);
    assert_true(c.optim.adamw.beta1 == 0.9 && c.optim.adamw.beta2 == 0.95);
    assert_true(c.optim.adamw.eps == 1e-8 && c.optim.adamw.weight_decay == 0);
    assert_true(c.optim.clip == 1.0);
    assert_int_equal(c.optim.schedule.decay_start, 10); // steps - decay_steps
    assert_int_equal(c.train.micro_batch, 1);
    assert_int_equal(c.train.compute, COMPUTE_FLOAT32);
    assert_int_equal(c.log.every, 10);
    assert_int_equal(c.log.phases, 0);
    assert_false(c.log.tensorboard);
    config_release(&c);
}

static void test_init_becomes_a_shape(void **state)
{
    (void)state;
    Config c;
    assert_ok(load(&c, INIT SOURCES TRAIN, 0, NULL));
    const ModelShape *s = &c.model.init.shape;
    assert_true(c.model.init.given && c.model.base == NULL && c.model.init.tokenizer == NULL);
    assert_int_equal(s->n_layers, 2);
    assert_int_equal(s->d_model, 64);
    assert_int_equal(s->n_kv_heads, 4);
    assert_int_equal(s->head_dim, 16);
    assert_int_equal(s->rope_pairs, 8);
    assert_int_equal(s->d_kv, 0);
    assert_true(s->tied_head && s->rope_theta == 10000 && s->rms_eps == 1e-5);
    assert_true(c.model.init.initializer_range == 0.02);
    config_release(&c);
}

static void test_convert_and_names_are_read(void **state)
{
    (void)state;
    Config c;
    assert_ok(load(&c,
                   "model: {base: m, convert: {rope: uniform, rope_pairs: 4, svd: split, d_kv: 8, "
                   "samples: 7, scores: s.h5}}\nrun: {export_dtype: bfloat16}\n" SOURCES TRAIN,
                   1, (char *const[]){(char[]){"--train.compute=bfloat16"}}));
    const ConvertConfig *convert = &c.model.convert;
    assert_true(convert->given);
    assert_int_equal(convert->rope, ROPE_UNIFORM);
    assert_int_equal(convert->target.svd, SVD_SPLIT);
    assert_int_equal(convert->target.rope_pairs, 4);
    assert_int_equal(convert->target.d_kv, 8);
    assert_int_equal(convert->samples, 7);
    assert_string_equal(convert->scores, "s.h5");
    assert_int_equal(c.run.export_dtype, DTYPE_BF16);
    assert_int_equal(c.train.compute, COMPUTE_BFLOAT16);
    config_release(&c);
}

static void test_overrides_replace_in_order(void **state)
{
    (void)state;
    Config c;
    char *overrides[] = {
        strdup("--optim.lr=1e-3"),
        strdup("optim.lr=2e-3"),
        strdup("--run.name=other"),
        strdup("--data.validation.shards=[v1.h5, 'v 2.h5']"),
        strdup("--data.sources=[{name: t, shards: t-*.h5, weight: 3}]"),
        strdup("--optim.decay_start=none"),
    };
    assert_ok(load(&c, CONVERT SOURCES TRAIN "optim: {lr: 1, decay_start: 3}\n", 6, overrides));
    for (int i = 0; i < 6; i++)
        free(overrides[i]);
    assert_true(c.optim.schedule.lr == 2e-3);
    assert_string_equal(c.run.name, "other");
    assert_int_equal(c.data.validation.n_shards, 2);
    assert_string_equal(c.data.validation.shards[1], "v 2.h5");
    assert_int_equal(c.data.validation.sequences, 64);
    assert_int_equal(c.data.n_sources, 1);
    assert_string_equal(c.data.sources[0].shards[0], "t-*.h5");
    assert_int_equal(c.optim.schedule.decay_start, 10);
    config_release(&c);
}

static void test_none_turns_a_conversion_into_its_baseline(void **state)
{
    (void)state;
    Config c;
    assert_ok(load_with(&c, CONVERT SOURCES TRAIN, "--model.convert=none"));
    assert_false(c.model.convert.given);
    config_release(&c);
    assert_ok(load_with(&c, CONVERT SOURCES TRAIN, "--model.convert.d_kv=9"));
    assert_int_equal(c.model.convert.target.d_kv, 9);
    assert_int_equal(c.model.convert.target.rope_pairs, 4);
    config_release(&c);
}

typedef struct BadCase {
    const char *text, *expected;
} BadCase;

static void expect_all(const BadCase *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        Config c;
        assert_fails(BAD_INPUT, cases[i].expected, load(&c, cases[i].text, 0, NULL));
    }
}

#define EXPECT_ALL(cases) expect_all((cases), sizeof(cases) / sizeof *(cases))

static void expect_all_overrides(const BadCase *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        Config c;
        assert_fails(BAD_INPUT, cases[i].expected,
                     load_with(&c, BASE SOURCES TRAIN, cases[i].text));
    }
}

#define EXPECT_ALL_OVERRIDES(cases) expect_all_overrides((cases), sizeof(cases) / sizeof *(cases))

static void test_a_single_error_names_line_and_key(void **state)
{
    (void)state;
    const BadCase cases[] = {
        {BASE SOURCES TRAIN "optim:\n  warmup: 3\n",
         "x.yaml:5: unknown key optim.warmup; did you mean optim.warmup_steps?"},
        {BASE SOURCES TRAIN "optim: {steps: 3}\n", "did you mean train.steps?"},
        {BASE SOURCES TRAIN "xyzzy: 3\n", "x.yaml:4: unknown key xyzzy; see"},
        {BASE SOURCES TRAIN "train.steps: 3\n", "write nested blocks"},
        {BASE SOURCES TRAIN "run: {seed: 1}\nrun: {seed: 2}\n",
         "x.yaml:5: duplicate key 'run', first on line 4"},
        {BASE SOURCES TRAIN "run: [1]\n", "x.yaml:4: run is a list where it needs keys"},
        {BASE SOURCES TRAIN "run: 7\n", "x.yaml:4: run is a single value"},
        {BASE SOURCES TRAIN "run: {name: }\n", "run.name has no value"},
        {BASE SOURCES TRAIN "run: {name: [a]}\n", "run.name has a list where it needs text"},
        {BASE SOURCES TRAIN "run: {name: a/b}\n", "run.name is 'a/b'"},
        {BASE SOURCES TRAIN "run: {export_dtype: fp16}\n",
         "run.export_dtype is 'fp16', allowed are float32, float16, bfloat16"},
        {BASE SOURCES "train: {steps: 1, global_batch: 1, compute: float16}\n",
         "x.yaml:3: train.compute is 'float16', allowed are float32, bfloat16"},
        {BASE SOURCES "train: {global_batch: 1}\n", "x.yaml:3: train.steps is missing"},
        {"model: {base: m, convert: {d_kv: 3}}\n" SOURCES TRAIN,
         "x.yaml:1: model.convert.rope_pairs is missing"},
        {"model: {base: m, convert: }\n" SOURCES TRAIN, "2 errors"}, // rope_pairs, d_kv missing
        {BASE TRAIN, "x.yaml: data.sources is missing"},
        {BASE TRAIN "data: {sources: []}\n", "data.sources must be a list of mappings"},
        {BASE TRAIN "data: {sources: [{name: s, shards: []}]}\n", "shards is an empty list"},
        {BASE TRAIN "data: {sources: [{name: s, shards: [[a]]}]}\n", "needs text"},
        {BASE TRAIN "data: {sources: [{name: s}]}\n", "data.sources[].shards is missing"},
    };
    EXPECT_ALL(cases);
}

static void test_numbers_are_checked(void **state)
{
    (void)state;
    const BadCase reals[] = {
        {"4x", "optim.lr is '4x', which is not a number such as 0.5 or 5.0e-1"},
        {"nan", "'nan', which is not a number"},
        {"inf", "'inf', which is not a number"},
        {".inf", "which is not a number"},
        {"0x1", "which is not a number"},
        {"1e", "which is not a number"},
        {"'1'", "which is not a number"},
        {"e", "which is not a number"},
        {"", "which is not a number"},
        {"1e999", "optim.lr is 1e999, allowed are 0 to 10"},
        {"-1e-9", "optim.lr is -1e-9, allowed are 0 to 10"},
        {"[1]", "optim.lr is a list where it needs a single value"},
    };
    const BadCase ints[] = {
        {"4x", "log.every is '4x', which is not a whole number"},
        {"1.0", "which is not a whole number"},
        {"1e3", "which is not a whole number"},
        {"true", "which is not a whole number"},
        {"0", "log.every is 0, allowed are 1 to 2147483647 steps"},
        {"2147483648", "allowed are 1 to 2147483647 steps"},
        {"99999999999999999999", "allowed are 1 to 2147483647 steps"},
        {"-99999999999999999999", "allowed are 1 to 2147483647 steps"},
    };
    char text[64];
    Config c;
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        snprintf(text, sizeof text, "--optim.lr=%s", reals[i].text);
        assert_fails(BAD_INPUT, reals[i].expected, load_with(&c, BASE SOURCES TRAIN, text));
    }
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        snprintf(text, sizeof text, "--log.every=%s", ints[i].text);
        assert_fails(BAD_INPUT, ints[i].expected, load_with(&c, BASE SOURCES TRAIN, text));
    }
    assert_fails(BAD_INPUT, "write true",
                 load_with(&c, INIT SOURCES TRAIN, "--model.init.tie_word_embeddings=yes"));
}

static int steps_of(const char *keys)
{
    Config c;
    char text[512];
    snprintf(text, sizeof text, BASE "data: {seq_len: 100, %s}\n",
             keys); // 4 x 100 tokens a step
    assert_ok(load(&c, text, 0, NULL));
    assert_true(c.train.fraction == 0); // has become steps
    int steps = c.train.steps;
    assert_int_equal(c.optim.schedule.decay_start, steps);
    config_release(&c);
    return steps;
}

static void test_a_share_of_the_pretraining_tokens_becomes_steps(void **state)
{
    (void)state;
#define SHARE(tokens, share)                                                                       \
    "sources: [{name: s, shards: [a.h5]}], pretraining_tokens: " tokens "}\n"                      \
    "train: {fraction: " share ", global_batch: 4"
    assert_int_equal(steps_of(SHARE("1.0e+6", "0.4%")), 10);
    assert_int_equal(steps_of(SHARE("1.0e+6", "0.004")), 10);
    assert_int_equal(steps_of(SHARE("1.0e+6", "0.41%")), 11); // rounded up
    assert_int_equal(steps_of(SHARE("600.0e+9", "0.3932%")), 5898000);
    assert_int_equal(steps_of(SHARE("1", "100%")), 1);
}

static void test_a_share_without_its_tokens_or_beside_steps_is_refused(void **state)
{
    (void)state;
#define SHARED "train: {fraction: 0.4%, global_batch: 4}\n"
    const BadCase cases[] = {
        {BASE SOURCES SHARED, "x.yaml:2: data.pretraining_tokens is missing; train.fraction is"},
        {BASE SOURCES "train: {steps: 1, fraction: 1%, global_batch: 4}\n",
         "x.yaml:3: train.steps and train.fraction are both given; keep one"},
        {BASE SOURCES "train: {fraction: 1 %, global_batch: 4}\n", "'1 %', which is not a share"},
        {BASE SOURCES "train: {fraction: '%', global_batch: 4}\n", "'%', which is not a share"},
        {BASE SOURCES "train: {fraction: , global_batch: 4}\n", "'', which is not a share"},
        {BASE SOURCES "train: {fraction: '1%', global_batch: 4}\n", "which is not a share"},
        {BASE SOURCES "train: {fraction: [1], global_batch: 4}\n", "needs a single value"},
        {BASE SOURCES "train: {fraction: 0%, global_batch: 4}\n", "fraction is 0%, allowed are"},
        {BASE SOURCES "train: {fraction: -1%, global_batch: 4}\n", "fraction is -1%, allowed are"},
        {BASE SOURCES "train: {fraction: 10001%, global_batch: 4}\n", "1.0e-12 to 100"},
    };
    EXPECT_ALL(cases);
    Config c;
    assert_fails(BAD_INPUT, "is 4.883e+11 steps, more than 2147483647; make it smaller",
                 load_with(&c, BASE SOURCES SHARED, "--data.pretraining_tokens=1e18"));
    assert_fails(BAD_INPUT, "train.fraction and data.pretraining_tokens",
                 load_with(&c, BASE SOURCES SHARED, "--train.fraction=none"));
    assert_fails(BAD_INPUT, "decay_steps is 9, more than train.steps 1",
                 load_with(&c,
                           BASE SHARED "optim: {decay_steps: 9}\ndata: {pretraining_tokens: 9, "
                                       "sources: [{name: s, shards: [a.h5]}]}\n",
                           "--log.every=1"));
}

static void test_keys_that_do_not_fit_together(void **state)
{
    (void)state;
    const BadCase cases[] = {
        {SOURCES TRAIN, "x.yaml: model.base is missing; give an HF directory there, or a shape"},
        {INIT SOURCES TRAIN "optim: {lr: 1.0e-4, min_lr: 1.0e-3}\n", "min_lr is 0.001, more than"},
        {BASE SOURCES TRAIN "optim: {decay_steps: 11}\n",
         "decay_steps is 11, more than train.steps"},
        {BASE SOURCES TRAIN "optim: {decay_steps: 4, warmup_steps: 7}\n",
         "warmup_steps is 7, but the decay starts after step 6"},
        {BASE SOURCES "train: {steps: 1, global_batch: 6, micro_batch: 4}\n",
         "micro_batch is 4, which does not divide train.global_batch 6"},
        {BASE TRAIN "data: {sources: [{name: s, shards: a}, {name: s, shards: b}]}\n",
         "has the name 's' twice"},
        {INIT TRAIN "data: {seq_len: 4096, sources: [{name: s, shards: a}]}\n",
         "data.seq_len is 4096, more than model.init.max_position_embeddings 2048"},
    };
    EXPECT_ALL(cases);
    Config c;
    assert_fails(BAD_INPUT, "model.base and model.init are both given",
                 load_with(&c, INIT SOURCES TRAIN, "--model.base=m"));
    assert_fails(BAD_INPUT, "does not divide by num_attention_heads 5; set head_dim",
                 load_with(&c, INIT SOURCES TRAIN, "--model.init.num_attention_heads=5"));
    assert_fails(BAD_INPUT, "4 query heads do not divide among 3 KV heads",
                 load_with(&c, INIT SOURCES TRAIN, "--model.init.num_key_value_heads=3"));
    assert_fails(BAD_INPUT, "RoPE needs an even one",
                 load_with(&c, INIT SOURCES TRAIN, "--model.init.head_dim=15"));
    assert_fails(BAD_INPUT, "model.convert does not fit model.init: conversion: d_kv is 999",
                 load_with(&c, INIT SOURCES TRAIN, "--model.convert={rope_pairs: 2, d_kv: 999}"));
}

static void test_what_is_no_yaml_mapping_is_refused(void **state)
{
    (void)state;
    const BadCase cases[] = {
        {"", "x.yaml: empty"},
        {"# only words\n", "x.yaml: empty"},
        {"---\n", "x.yaml: empty"},
        {"a\n", "x.yaml:1: not a mapping"},
        {"- a\n", "x.yaml:1: not a mapping"},
        {"run: {name: x\nmodel: 3\n", "not valid YAML"},
        {"run:\n\tname: x\n", "x.yaml:2:1: not valid YAML"},
        {"run: {name: \xff}\n", "not valid YAML"},
        {"run: {name: \x01}\n", "not valid YAML"},
        {"run: {name: \"a\\nb\"}\n", "x.yaml:1: text with control characters"},
        {"run: {name: \"a\\u2028b\"}\n", "x.yaml:1: text with control characters"},
        {"run: &a {name: x}\nlog: *a\n", "x.yaml:1: anchors, aliases and tags"},
        {"run: !!map {name: x}\n", "x.yaml:1: anchors, aliases and tags"},
        {"run: {}\n---\nrun: {}\n", "more than one YAML document"},
        {"? [a]\n: b\n", "x.yaml:1: a key is a list"},
        {"a: [[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]\n", "nested deeper than 16"},
    };
    EXPECT_ALL(cases);
    Config c;
    assert_fails(BAD_INPUT, "/absent/x.yaml: cannot be opened",
                 config_load(&c, testing_absent("x.yaml"), NULL, 0));
    assert_fails(BAD_INPUT, "not a regular file", config_load(&c, "/", NULL, 0));
}

static void test_other_programs_notations_are_told(void **state)
{
    (void)state;
    const BadCase cases[] = {
        {"--run.dir=null", "run.dir is null, which is no text; leave the key out for its default"},
        {"--run.dir=~", "run.dir is ~, which is no text"},
        {"--run.dir=${SCRATCH}/runs", "run.dir has '${SCRATCH}/runs', which is not expanded"},
        {"--run.dir=$HOME/runs", "run.dir has '$HOME/runs', which is not expanded"},
        {"--run.dir=~/runs", "run.dir has '~/runs', which is not expanded"},
        {"--run.name=\"a-${X}\"", "run.name has '${X}', which is not expanded"},
        {"--train.overlap=yes", "train.overlap is 'yes'; write true"},
        {"--train.overlap=Off", "train.overlap is 'Off'; write false"},
        {"--train.overlap='True'", "train.overlap is 'True'; write true without quotes"},
        {"--train.overlap=maybe", "train.overlap is 'maybe'; write true or false"},
        {"--train.steps=2.0", "which is not a whole number; write it as 2"},
        {"--train.steps=1e3", "which is not a whole number; write it as 1000"},
        {"--train.steps=10_000", "which is not a whole number; write it as 10000"},
    };
    EXPECT_ALL_OVERRIDES(cases);
}

static void test_yaml_booleans_are_taken(void **state)
{
    (void)state;
    static const char *const words[] = {"False", "FALSE", "false"};
    char text[64];
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        Config c;
        snprintf(text, sizeof text, "--train.overlap=%s", words[i]);
        assert_ok(load_with(&c, BASE SOURCES TRAIN, text));
        assert_false(c.train.overlap);
        config_release(&c);
    }
}

static void test_quoted_null_is_a_name(void **state)
{
    (void)state;
    Config c;
    assert_ok(load_with(&c, BASE SOURCES TRAIN, "--run.dir='null'"));
    assert_string_equal(c.run.dir, "null");
    config_release(&c);
}

static void test_malformed_overrides_are_named(void **state)
{
    (void)state;
    const BadCase cases[] = {
        {"--optim", "command line: '--optim' sets no key; write --section.key=value"},
        {"=3", "sets no key"},
        {"--.lr=3", "sets no key"},
        {"--optim..lr=3", "sets no key"},
        {"--optim.=3", "sets no key"},
        {"--a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r=3", "sets no key"},
        {"--optim.lr=[1", "command line: '--optim.lr=[1' is not valid YAML"},
        {"--optim.lr=\xff", "not valid YAML"},
        {"--optim.lrr=3", "command line: unknown key optim.lrr; did you mean optim.lr?"},
        {"--optim={lr: 1, lr: 2}", "command line: duplicate key 'lr'; keep one"},
        {"--data.seq_len.x=3", "command line: data.seq_len is a mapping"},
        {"--model.base=none", "model.base is missing"},
        {"--train=none", "train is a single value where it needs keys of its own"},
    };
    EXPECT_ALL_OVERRIDES(cases);
}

// The output of the call on stderr, in static storage.
static const char *errors_printed(const char *text, const char *override)
{
    static char printed[16384];
    const char *path = testing_path(testing_dir(), "stderr.txt");
    int kept = dup(STDERR_FILENO);
    assert_non_null(freopen(path, "w", stderr));
    log_set_quiet(false);
    Config c;
    Status status = load_with(&c, text, override);
    log_set_quiet(true);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    assert_int_equal(status, BAD_INPUT);
    FileMap map;
    assert_ok(file_map(&map, path));
    snprintf(printed, sizeof printed, "%.*s", (int)map.size_bytes, (const char *)map.bytes);
    file_unmap(&map);
    return printed;
}

static void test_all_errors_are_printed_in_the_order_of_the_file(void **state)
{
    (void)state;
    const char *printed = errors_printed("train: {steps: x, global_batch: 4}\n"
                                         "optim:\n  eps: 2\n  lr: 4x\n"
                                         "model: {base: m, bsae: n}\n" SOURCES,
                                         "--log.every=0");
    const char *const expected[] = {
        "x.yaml:1: train.steps is 'x'", "x.yaml:3: optim.eps is 2",
        "x.yaml:4: optim.lr is '4x'",   "x.yaml:5: unknown key model.bsae",
        "command line: log.every is 0",
    };
    const char *place = printed;
    for (int i = 0; i < 5; i++) {
        place = strstr(place, expected[i]);
        if (place == NULL)
            fail_msg("'%s' is not in its place in '%s'", expected[i], printed);
    }
    int n_lines = 0;
    for (const char *c = printed; *c != '\0'; c++)
        n_lines += *c == '\n';
    assert_int_equal(n_lines, 5);
    assert_non_null(strstr(fail_text(), "x.yaml: 5 errors"));
}

static void test_more_errors_than_kept_are_counted(void **state)
{
    (void)state;
    char text[4096] = "";
    for (int i = 0; i < 200; i++)
        sprintf(text + strlen(text), "k%d: 1\n", i);
    Config c;
    // 200 unknown keys; data.sources and train.global_batch missing.
    assert_fails(BAD_INPUT, "202 errors", load(&c, text, 0, NULL));
    for (int i = 200; i < 300; i++)
        sprintf(text + strlen(text), "k%d: 1\n", i);
    assert_fails(BAD_INPUT, "more than 256 keys", load(&c, text, 0, NULL));
}

static void test_endless_list_of_sources_is_refused(void **state)
{
    (void)state;
    char text[8192] = "data: {sources: [";
    size_t used = strlen(text);
    for (int i = 0; i < 1001; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "{},");
    snprintf(text + used, sizeof text - used, "]}\n" BASE TRAIN);
    Config c;
    assert_fails(BAD_INPUT, "x.yaml:1: data.sources has 1001 entries, allowed are 1 to 1000",
                 load(&c, text, 0, NULL));
}

static void expect_written_back(const char *text)
{
    Config c;
    assert_ok(load(&c, text, 0, NULL));
    char first[PATH_BYTES], second[PATH_BYTES];
    const char *dir = testing_dir();
    assert_ok(file_join(first, dir, "first.yaml"));
    assert_ok(file_join(second, dir, "second.yaml"));
    assert_ok(config_write(&c, first));
    Config back;
    assert_ok(config_load(&back, first, NULL, 0));
    assert_ok(config_write(&back, second));
    FileMap a, b;
    assert_ok(file_map(&a, first));
    assert_ok(file_map(&b, second));
    assert_int_equal(a.size_bytes, b.size_bytes);
    assert_memory_equal(a.bytes, b.bytes, (size_t)a.size_bytes);
    file_unmap(&a);
    file_unmap(&b);
    assert_string_equal(back.run.name, c.run.name);
    assert_string_equal(back.data.sources[0].shards[0], c.data.sources[0].shards[0]);
    assert_memory_equal(&back.optim, &c.optim, sizeof c.optim);
    assert_memory_equal(&back.train, &c.train, sizeof c.train);
    assert_int_equal(back.model.convert.given, c.model.convert.given);
    assert_memory_equal(&back.model.init.shape, &c.model.init.shape, sizeof(ModelShape));
    config_release(&back);
    config_release(&c);
}

static void test_written_config_reads_back_the_same(void **state)
{
    (void)state;
    expect_written_back(CONVERT SOURCES TRAIN);
    expect_written_back("run: {name: 'none', dir: \"it's: #1 \", seed: 9007199254740992}\n"
                        "model: {init: {hidden_size: 64, intermediate_size: 96, rope_theta: 1.0e6,"
                        " num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2,"
                        " vocab_size: 100, tokenizer: '\xc3\xa4 b'},\n"
                        "  convert: {rope: high, rope_pairs: 2, svd: split, d_kv: 6}}\n"
                        "data: {sources: [{name: '*a', shards: ['[x].h5', b], weight: 0.1}]}\n"
                        "optim: {lr: 0.00012345678901234567, eps: 1e-12, decay_steps: 3}\n" TRAIN);
    expect_written_back(BASE "data: {sources: [{name: s, shards: [a.h5]}], pretraining_tokens: "
                             "6.0e+11}\ntrain: {fraction: 0.3%, global_batch: 4}\n");
}

// A key and the field that knows its bounds are of one member of the shape.
static void test_keys_of_a_shape_are_its_fields(void **state)
{
    (void)state;
    int n_keys = 0;
    for (int k = 0; k < n_config_keys; k++) {
        const Key *key = &config_keys[k];
        if (key->field == NULL)
            continue;
        const bool is_chosen = key->field->owner == SHAPE_OF_CONVERSION;
        const char *block = is_chosen ? "model.convert" : "model.init";
        const char *name = key_name_in(key, block);
        assert_non_null(name);
        assert_string_equal(name, key->field->key);
        if (!is_chosen) {
            assert_int_equal(key->offset, offsetof(Config, model.init.shape) + key->field->offset);
            assert_int_equal(key->required, key->field->presence == SHAPE_REQUIRED);
        }
        n_keys++;
    }
    int n_fields = 0; // a model from random weights is a plain one
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        n_fields +=
            shape_fields[i].owner == SHAPE_OF_MODEL || shape_fields[i].owner == SHAPE_OF_CONVERSION;
    assert_int_equal(n_keys, n_fields);
}

static void test_reference_is_the_one_in_configs(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "reference.yaml");
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    config_print_reference(out);
    assert_int_equal(fclose(out), 0);
    FileMap printed, kept;
    assert_ok(file_map(&printed, path));
    assert_ok(file_map(&kept, CONFIGS_DIR "/reference.yaml"));
    assert_int_equal(printed.size_bytes, kept.size_bytes);
    assert_memory_equal(printed.bytes, kept.bytes, (size_t)kept.size_bytes);
    file_unmap(&printed);
    file_unmap(&kept);
}

// Damaged files: whatever happens to the bytes, the result is a config or an error of one line.
static void test_damaged_files_give_one_line(void **state)
{
    (void)state;
    const char whole[] =
        INIT "run: {name: a, seed: 1}\n" SOURCES TRAIN "optim:\n  lr: 1.0e-3 # fast\n  clip: 1\n";
    const char pieces[] = ":{}[]-,&*!?|>'\"#%@` \n\t\\0x\xc3";
    uint64_t key = random_key(7, "damage");
    int n_refused = 0;
    Config undamaged;
    assert_ok(load(&undamaged, whole, 0, NULL));
    config_release(&undamaged);
    for (uint64_t i = 0; i < 300; i++) {
        char text[sizeof whole];
        memcpy(text, whole, sizeof whole);
        uint64_t bits = random_bits(key, i);
        for (int k = 0; k <= (int)(bits & 1); k++) {
            uint64_t more = random_bits(key + 1, 2 * i + (uint64_t)k);
            text[more % (sizeof whole - 1)] = pieces[(more >> 32) % (sizeof pieces - 1)];
        }
        if ((bits >> 8 & 7) == 0)
            text[(bits >> 16) % sizeof whole] = '\0';
        Config c;
        Status status = load(&c, text, 0, NULL);
        if (status == OK) {
            config_release(&c);
            continue;
        }
        n_refused++;
        testing_assert_fails(BAD_INPUT, "x.yaml", status, text);
    }
    assert_true(n_refused > 250 && n_refused < 300); // seen 294: few bytes are in names or comments
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_filled),
        cmocka_unit_test(test_init_becomes_a_shape),
        cmocka_unit_test(test_convert_and_names_are_read),
        cmocka_unit_test(test_overrides_replace_in_order),
        cmocka_unit_test(test_none_turns_a_conversion_into_its_baseline),
        cmocka_unit_test(test_a_single_error_names_line_and_key),
        cmocka_unit_test(test_numbers_are_checked),
        cmocka_unit_test(test_a_share_of_the_pretraining_tokens_becomes_steps),
        cmocka_unit_test(test_a_share_without_its_tokens_or_beside_steps_is_refused),
        cmocka_unit_test(test_keys_that_do_not_fit_together),
        cmocka_unit_test(test_what_is_no_yaml_mapping_is_refused),
        cmocka_unit_test(test_other_programs_notations_are_told),
        cmocka_unit_test(test_yaml_booleans_are_taken),
        cmocka_unit_test(test_quoted_null_is_a_name),
        cmocka_unit_test(test_malformed_overrides_are_named),
        cmocka_unit_test(test_all_errors_are_printed_in_the_order_of_the_file),
        cmocka_unit_test(test_more_errors_than_kept_are_counted),
        cmocka_unit_test(test_endless_list_of_sources_is_refused),
        cmocka_unit_test(test_written_config_reads_back_the_same),
        cmocka_unit_test(test_keys_of_a_shape_are_its_fields),
        cmocka_unit_test(test_reference_is_the_one_in_configs),
        cmocka_unit_test(test_damaged_files_give_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
