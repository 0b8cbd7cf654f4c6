// The runs of a sweep: their order, names and directories, and what is found out before they start.
#include "tests/support/testing.h"

#include "base/file.h"
#include "train/sweep/sweep.h"

#include <string.h>

// A config of a model from random weights, whose path has static storage.
static const char *write_config(const char *run)
{
    const char *path = testing_path(testing_dir(), "small-dkv4.yaml");
    char text[1024];
    const int n = snprintf(
        text, sizeof text,
        "%s"
        "model:\n"
        "  init: {hidden_size: 16, intermediate_size: 24, num_hidden_layers: 1,\n"
        "         num_attention_heads: 2, head_dim: 8, vocab_size: 64}\n"
        "  convert: {rope: high, rope_pairs: 1, d_kv: 4}\n"
        "data: {seq_len: 8, pretraining_tokens: 1.0e+6, sources: [{name: a, shards: [a.h5]}]}\n"
        "train: {steps: 2, global_batch: 4}\n",
        run);
    assert_ok(file_write(path, text, n));
    return path;
}

// Opens and names a sweep over a config.
static void open_sweep(Sweep *sweep, const SweepRequest *request, const char *out)
{
    Config config;
    assert_ok(sweep_open(sweep, request));
    assert_ok(sweep_load_first(&config, sweep));
    assert_ok(sweep_name(sweep, &config, out));
    config_release(&config);
}

static void test_the_last_key_varies_fastest(void **state)
{
    (void)state;
    const char *const vary[] = {"model.convert.rope=high,low", "optim.lr=1e-4,2e-4"};
    const SweepRequest request = {
        .config = write_config(""), .d_kvs = "6,2", .vary = vary, .n_vary = 2, .baseline = true};
    const char *const names[] = {"small-baseline",
                                 "small-dkv6-rope-high-lr-1e-4",
                                 "small-dkv6-rope-high-lr-2e-4",
                                 "small-dkv6-rope-low-lr-1e-4",
                                 "small-dkv6-rope-low-lr-2e-4",
                                 "small-dkv2-rope-high-lr-1e-4",
                                 "small-dkv2-rope-high-lr-2e-4",
                                 "small-dkv2-rope-low-lr-1e-4",
                                 "small-dkv2-rope-low-lr-2e-4"};
    Sweep sweep;
    open_sweep(&sweep, &request, NULL);
    assert_int_equal(sweep.n_runs, 9);
    assert_string_equal(sweep.out, "runs/sweep-small-dkv-rope-lr");
    for (int i = 0; i < 9; i++) {
        assert_string_equal(sweep.runs[i].name, names[i]);
        assert_ptr_equal(sweep_find(&sweep, i), &sweep.runs[i]);
    }
    assert_string_equal(sweep.runs[8].dir, "runs/small-dkv2-rope-low-lr-2e-4");
    assert_string_equal(sweep.runs[0].config, "runs/sweep-small-dkv-rope-lr/small-baseline.yaml");
    assert_null(sweep_find(&sweep, 9));
    assert_ok(sweep_check(&sweep, 1));
    Config config;
    assert_ok(sweep_load(&config, &sweep, &sweep.runs[4], 1));
    assert_int_equal(config.model.convert.target.d_kv, 6);
    assert_int_equal(config.model.convert.rope, ROPE_LOW);
    assert_true(config.optim.schedule.lr == 2e-4);
    assert_string_equal(config.run.name, names[4]);
    config_release(&config);
    assert_ok(sweep_load(&config, &sweep, &sweep.runs[0], 1));
    assert_false(config.model.convert.given);
    assert_true(config.optim.schedule.lr == 1e-4); // the config's own
    config_release(&config);
    sweep_close(&sweep);
}

// A d_kv in the config's name is left where all runs have it; the baseline has none.
static void test_names_without_a_varied_d_kv(void **state)
{
    (void)state;
    const char *const vary[] = {"model.convert.rope=high,low"};
    SweepRequest request = {
        .config = write_config(""), .vary = vary, .n_vary = 1, .baseline = true};
    Sweep sweep;
    open_sweep(&sweep, &request, NULL);
    assert_string_equal(sweep.out, "runs/sweep-small-dkv4-rope");
    assert_string_equal(sweep.runs[0].name, "small-baseline");
    assert_string_equal(sweep.runs[2].name, "small-dkv4-rope-low");
    sweep_close(&sweep);
    request = (SweepRequest){.config = write_config("run: {name: own, dir: a/b}\n"), .d_kvs = "2"};
    open_sweep(&sweep, &request, "elsewhere");
    assert_int_equal(sweep.n_runs, 1);
    assert_null(sweep_find(&sweep, 0)); // no baseline
    assert_string_equal(sweep_find(&sweep, 1)->dir, "a/b/own-dkv2");
    assert_string_equal(sweep.runs[0].config, "elsewhere/own-dkv2.yaml");
    sweep_close(&sweep);
    request.config = write_config("");
    open_sweep(&sweep, &request, NULL);
    assert_string_equal(sweep.out, "runs/sweep-small");
    sweep_close(&sweep);
}

// The config alone need not be valid: a varied key may be missing from it.
static void test_a_key_that_the_config_does_not_have(void **state)
{
    (void)state;
    const char *const vary[] = {"train.fraction=10%,20%"};
    char none[] = "--train.steps=none", *overrides[] = {none};
    const SweepRequest request = {.config = write_config(""),
                                  .overrides = overrides,
                                  .n_overrides = 1,
                                  .vary = vary,
                                  .n_vary = 1};
    Sweep sweep;
    open_sweep(&sweep, &request, NULL);
    assert_string_equal(sweep.runs[1].name, "small-dkv4-fraction-20");
    assert_ok(sweep_check(&sweep, 1));
    sweep_close(&sweep);
}

static void test_what_is_no_sweep(void **state)
{
    (void)state;
    Sweep sweep;
    SweepRequest request = {.config = write_config("")};
    assert_fails(BAD_INPUT, "nothing is varied", sweep_open(&sweep, &request));
    const char *const twice[] = {"model.convert.d_kv=2,4"};
    request = (SweepRequest){.config = request.config, .d_kvs = "6", .vary = twice, .n_vary = 1};
    assert_fails(BAD_INPUT, "model.convert.d_kv is varied twice", sweep_open(&sweep, &request));
    const char *const many[] = {"run.seed=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16",
                                "log.every=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16"};
    request = (SweepRequest){.config = request.config, .vary = many, .n_vary = 2};
    assert_fails(BAD_INPUT, "more than 255 combinations", sweep_open(&sweep, &request));
    const char *const same[] = {"optim.lr=1e-4,2e-4,0.0001"};
    request = (SweepRequest){.config = request.config, .vary = same, .n_vary = 1};
    open_sweep(&sweep, &request, NULL);
    assert_fails(BAD_INPUT, "small-dkv4-lr-1e-4 and small-dkv4-lr-0.0001 have the same settings",
                 sweep_check(&sweep, 1));
    sweep_close(&sweep);
    request = (SweepRequest){.config = request.config, .d_kvs = "4,99"};
    open_sweep(&sweep, &request, NULL);
    assert_fails(BAD_INPUT, "d_kv is 99, allowed are 1 to", sweep_check(&sweep, 1));
    sweep_close(&sweep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_last_key_varies_fastest),
        cmocka_unit_test(test_names_without_a_varied_d_kv),
        cmocka_unit_test(test_a_key_that_the_config_does_not_have),
        cmocka_unit_test(test_what_is_no_sweep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
