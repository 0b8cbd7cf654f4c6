// Which differences of configs, models and files stop a job, at every number of ranks CTest starts
// this with: the last rank is the one that differs. tests/resilience/contract.sh starts whole
// commands.
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"

#include "base/file.h"
#include "model/hf/hf.h"
#include "train/agreement.h"

#include <stdio.h>
#include <string.h>

static Comm comm;

static const char yaml[] = "run: {name: x}\n"
                           "model: {base: m, convert: {rope_pairs: 4, d_kv: 16}}\n"
                           "data: {sources: [{name: s, shards: [a.h5]}]}\n"
                           "train: {steps: 10, global_batch: 4}\n";

static bool is_last(void)
{
    return comm.rank == comm.size - 1;
}

// The error names the last rank; on one rank there is none.
static void expect_refused(Status status, const char *text)
{
    char rank[64];
    if (comm.size == 1) {
        assert_int_equal(status, OK);
        return;
    }
    snprintf(rank, sizeof rank, "rank %d on ", comm.size - 1);
    assert_int_equal(status, BAD_INPUT);
    assert_memory_equal(fail_text(), rank, strlen(rank));
    if (strstr(fail_text(), text) == NULL)
        fail_msg("no '%s' in: %s", text, fail_text());
}

// Agrees on the config, to which the last rank has one more override.
static Status agree_with(const char *override)
{
    static char path[PATH_BYTES];
    char word[256];
    char *overrides[] = {word};
    Config config = {0};
    if (path[0] == '\0') {
        snprintf(path, sizeof path, "%s", testing_path(testing_dir(), "x.yaml"));
        assert_ok(file_write(path, yaml, (int64_t)strlen(yaml)));
    }
    snprintf(word, sizeof word, "%s", override);
    Status status = config_load(&config, path, overrides, is_last() && override[0] != '\0');
    status = agreement_config(&comm, &config, status);
    config_release(&config);
    return status;
}

static void test_every_key_but_paths_counts(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"--optim.lr=9.0e-3", ": optim.lr is 0.009, rank 0 on "},
        {"--optim.weight_decay=0.5", ": optim.weight_decay is 0.5, "},
        {"--run.seed=7", ": run.seed is 7, rank 0 on "},
        {"--run.name=y", ": run.name is "},
        {"--train.steps=9", ": train.steps is 9, "}, // not decay_start, which follows from it
        {"--train.global_batch=8", ": train.global_batch is 8, "},
        {"--train.reduce_dtype=bfloat16", ": train.reduce_dtype is bfloat16, rank 0 on "},
        {"--train.compute=bfloat16", ": train.compute is bfloat16, rank 0 on "},
        {"--model.convert.d_kv=8", ": model.convert.d_kv is 8, rank 0 on "},
        {"--model.convert=none", ": model.convert.method is not given, rank 0 on "},
        {"--model.convert.scores=s.h5", ": model.convert.scores is a path, rank 0 on "},
        {"--checkpoint.every=3", ": checkpoint.every is 3, "},
        {"--data.validation={shards: [v.h5], every: 2}", ": data.validation."},
        {"--log.phases=5", ": log.phases is 5, "},
        {"--optim.lr=fast", "optim.lr is 'fast', which is not a number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (comm.size > 1)
            expect_refused(agree_with(cases[i][0]), cases[i][1]);
}

static void test_paths_may_differ(void **state)
{
    (void)state;
    assert_ok(agree_with(""));
    assert_ok(agree_with("--model.base=elsewhere"));
    assert_ok(agree_with("--run.dir=elsewhere"));
    assert_ok(agree_with("--data.sources=[{name: s, shards: [copy/a.h5, copy/b.h5]}]"));
}

static const ModelShape example = {
    .n_layers = 1,
    .d_model = 8,
    .n_heads = 2,
    .n_kv_heads = 1,
    .head_dim = 4,
    .d_ffn = 12,
    .vocab_size = 31,
    .max_positions = 64,
    .rope_pairs = 2,
    .tied_head = true,
    .rope_theta = 10000.0,
    .rms_eps = 1e-5,
};

static void test_shapes(void **state)
{
    (void)state;
    ModelShape original = example, converted;
    assert_ok(shape_convert(&converted, &example, 1, 3, SVD_JOINT));
    assert_ok(agreement_shapes(&comm, &original, &converted, OK));
    if (is_last())
        original.rope_theta = 20000.0;
    expect_refused(agreement_shapes(&comm, &original, &converted, OK),
                   ": the model's rope_theta is 20000, rank 0 on ");
    original = example;
    if (is_last())
        converted.d_kv = 2;
    expect_refused(agreement_shapes(&comm, &original, &converted, OK),
                   ": the trained model's d_kv is 2, rank 0 on ");
}

// Each rank has a directory of its own.
static void test_models_count_by_what_is_in_them(void **state)
{
    (void)state;
    const char *same = testing_path(testing_dir(), "same");
    const char *other = testing_path(testing_dir(), "other");
    Model model;
    assert_ok(model_create(&model, &example));
    testing_fill(model.params.flat, model.params.count, 0.1, 7);
    assert_ok(hf_save(&model, NULL, DTYPE_F32, same));
    assert_ok(agreement_model(&comm, same));
    model.params.flat[3] += is_last() ? 1.0f : 0.0f;
    assert_ok(hf_save(&model, NULL, DTYPE_F32, other));
    expect_refused(agreement_model(&comm, other), ": tensors.model.embed_tokens.weight is F32 [");
    if (comm.size > 1)
        expect_refused(agreement_model(&comm, is_last() ? testing_absent("model") : same),
                       "absent/model");
    model_release(&model);
}

static void test_files_count_by_their_content(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "scores");
    assert_ok(file_write(path, "same", 4));
    assert_ok(agreement_file(&comm, "--scores", path));
    assert_ok(file_write(path, is_last() ? "this" : "that", 4));
    expect_refused(agreement_file(&comm, "--scores", path), ": --scores is a file with sha256 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_key_but_paths_counts),
        cmocka_unit_test(test_paths_may_differ),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_models_count_by_what_is_in_them),
        cmocka_unit_test(test_files_count_by_their_content),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
