// `mha2mla inspect`: what it prints about each kind of file.
#include "tests/testing.h"

#include "base/file.h"
#include "data/shard.h"
#include "model/hf.h"
#include "train/command.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *shared_dir(void)
{
    static const char *dir = NULL;
    if (dir == NULL)
        dir = testing_dir();
    return dir;
}

// Runs the command with stdout in a file; its text in static storage.
static const char *output_of(Status expected, const char *path)
{
    static char text[16384];
    char name[] = "inspect", argument[PATH_BYTES];
    char *argv[] = {name, argument, NULL};
    snprintf(argument, sizeof argument, "%s", path);
    const char *capture = testing_path(shared_dir(), "stdout");
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    int fd = open(capture, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(saved >= 0 && fd >= 0 && dup2(fd, STDOUT_FILENO) >= 0);
    Status status = cmd_inspect.run(2, argv);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    ssize_t length = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    assert_true(length >= 0);
    text[length] = '\0';
    if (status != expected)
        fail_msg("inspect %s: status %d: %s", path, (int)status, fail_text());
    return text;
}

static void assert_contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in:\n%s", part, text);
}

static void test_converted_model(void **state)
{
    (void)state;
    const ModelShape shape = {
        .n_layers = 2,
        .d_model = 24,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = 8,
        .d_ffn = 20,
        .vocab_size = 31,
        .max_positions = 64,
        .rope_pairs = 2,
        .d_kv = 6,
        .svd = SVD_SPLIT,
        .tied_head = true,
        .rope_theta = 10000.0,
        .rms_eps = 1e-5,
    };
    const int32_t pairs[8] = {0, 3, 1, 3, 2, 3, 2, 3};
    const char *dir = testing_path(shared_dir(), "model");
    Model model;
    assert_ok(model_create(&model, &shape));
    memcpy(model.rope_pairs, pairs, sizeof pairs);
    assert_ok(hf_save(&model, NULL, DTYPE_BF16, dir));
    const char *text = output_of(OK, dir);
    assert_contains(text,
                    "MLA, 4 query and 2 KV heads of width 8; 2 of 4 RoPE pairs, d_kv 6, split");
    assert_contains(text, "  layers        2, width 24, feed-forward 20\n");
    assert_contains(text, "  weights       BF16, ");
    assert_contains(text, "  this model              40 numbers          80 bytes\n"
                          "  original                64 numbers         128 bytes\n"
                          "  saving               37.50 %\n");
    assert_contains(text, "    0 55.#    1 ..##\n");
    char parameters[64];
    snprintf(parameters, sizeof parameters, "%lld (0.01 M)", (long long)model.params.count);
    assert_contains(text, parameters);
    model_release(&model);
}

static void test_original_model_of_transformers(void **state)
{
    (void)state;
    const char *text = output_of(OK, GOLDEN_DIR "/models/mqa_sharded");
    assert_contains(text, "Hugging Face model, original\n");
    assert_contains(text, "MQA, 2 query and 1 KV heads of width 16\n");
    assert_contains(text, "  parameters    19360 (0.02 M)\n");
    assert_contains(text, "  vocabulary    96, head of its own\n");
    assert_null(strstr(text, "saving"));
}

static void test_safetensors_groups_the_layers(void **state)
{
    (void)state;
    const char *text = output_of(OK, GOLDEN_DIR "/models/gqa_bf16/model.safetensors");
    assert_contains(text, "safetensors, 29 tensors, ");
    assert_contains(text, "     3 x  model.layers.*.mlp.up_proj.weight ");
    assert_contains(text, "BF16  [40, 32]             2.6 kB\n");
    assert_contains(text, "     1 x  model.norm.weight ");
}

static void test_names_of_any_kind_fit_the_table(void **state)
{
    (void)state;
    char name[400];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    memcpy(name, "1.22.a1.\n.", 10);
    const float value = 1;
    const TensorSpec specs[] = {{name, DTYPE_F32, 0, {0}, &value},
                                {"..", DTYPE_F32, 8, {1, 1, 1, 1, 1, 1, 1, 1}, &value},
                                {"", DTYPE_F32, 1, {1}, &value}};
    const char *path = testing_path(shared_dir(), "names.safetensors");
    assert_ok(safetensors_write(path, specs, 3));
    const char *text = output_of(OK, path);
    assert_contains(text, "     1 x  *.*.a1.?.xxxx");
    assert_contains(text, "     1 x  ..   ");
    assert_contains(text, "F32   [1, 1, 1, 1, 1, 1, 1, 1]        4 B\n");
}

static void write_shard(const char *path, int eos_id)
{
    ShardInfo info = {.vocab_size = 49152, .eos_id = eos_id, .source = "web text"};
    memset(info.tokenizer_sha256, 'a', SHA256_HEX_BYTES - 1);
    ShardWriter *writer;
    assert_ok(shard_create(&writer, path, &info));
    assert_ok(shard_append(writer, (int32_t[]){5, 6, 7, 0}, 4));
    assert_ok(shard_append(writer, (int32_t[]){8, 9, 0}, 3));
    assert_ok(shard_finish(writer));
}

static void test_token_shard(void **state)
{
    (void)state;
    const char *path = testing_path(shared_dir(), "a.h5");
    write_shard(path, 0);
    const char *text = output_of(OK, path);
    assert_contains(text, "a.h5: token shard\n"
                          "  tokens        7 (0.00 M)\n"
                          "  documents     2, 3.5 tokens on average\n"
                          "  vocabulary    49152\n"
                          "  document end  token 0\n"
                          "  tokenizer     sha256 aaaaaaaa");
    assert_contains(text, "aaaa\n  source        web text\n");
    write_shard(path, -1);
    assert_contains(output_of(OK, path), "  document end  no token of its own\n");
}

static void test_what_cannot_be_inspected_is_named(void **state)
{
    (void)state;
    output_of(BAD_INPUT, "/nonexistent");
    assert_string_equal(fail_text(), "/nonexistent: neither a file nor a directory");
    output_of(BAD_INPUT, shared_dir());
    assert_non_null(strstr(fail_text(), "config.json is missing"));
    const char *path = testing_path(shared_dir(), "a.txt");
    assert_ok(file_write(path, "x", 1));
    output_of(BAD_INPUT, path);
    assert_non_null(strstr(fail_text(), "a.txt: not a "));
    path = testing_path(shared_dir(), "bad.h5");
    assert_ok(file_write(path, "x", 1));
    output_of(BAD_INPUT, path);
    assert_non_null(strstr(fail_text(), "bad.h5: not "));
    path = testing_path(shared_dir(), "a.safetensors");
    assert_ok(file_write(path, "x", 1));
    output_of(BAD_INPUT, path);
    assert_non_null(strstr(fail_text(), "1 bytes are too few"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_converted_model),
        cmocka_unit_test(test_original_model_of_transformers),
        cmocka_unit_test(test_safetensors_groups_the_layers),
        cmocka_unit_test(test_names_of_any_kind_fit_the_table),
        cmocka_unit_test(test_token_shard),
        cmocka_unit_test(test_what_cannot_be_inspected_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
