// `mha2mla inspect`: what it prints about each kind of file.
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/random.h"
#include "data/shards/shard.h"
#include "data/tokenizer/tokenizer.h"
#include "model/convert/rope_scores.h"
#include "model/hf/hf.h"
#include "train/cli/commands.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *shared_dir(void)
{
    static const char *dir = NULL;
    if (dir == NULL)
        dir = testing_dir();
    return dir;
}

// Runs the command with up to three more arguments and stdout in a file; its text in static
// storage.
static const char *output_with(Status expected, const char *path, const char *const more[3])
{
    static char text[16384];
    char name[] = "inspect", argument[PATH_BYTES];
    char *argv[6] = {name, argument};
    int argc = 2;
    snprintf(argument, sizeof argument, "%s", path);
    for (; argc < 5 && more[argc - 2] != NULL; argc++)
        argv[argc] = (char *)(uintptr_t)more[argc - 2];
    const char *capture = testing_path(shared_dir(), "stdout");
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    int fd = open(capture, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(saved >= 0 && fd >= 0 && dup2(fd, STDOUT_FILENO) >= 0);
    Status status = command_run(&cmd_inspect, commands, argc, argv);
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

static const char *output_of(Status expected, const char *path)
{
    return output_with(expected, path, (const char *[3]){NULL});
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
    assert_contains(text, "  healed on     no record of training since the conversion\n");
    assert_contains(text, "  weights       BF16, ");
    assert_contains(text, "  cache         40 numbers per token, original 64: saving 37.50 %\n");
    // b bits and a half, for the scale and zero of 64 codes; 20 x 8.5 bits of k_r and c a layer.
    assert_contains(
        text, "KV cache per token    float32   bfloat16     8 bits     4 bits     3 bits     "
              "2 bits  bytes\n"
              "  this model              160         80       42.5       22.5       17.5       "
              "12.5\n"
              "  original                256        128         68         36         28         "
              "20\n"
              "  share              125.00 %    62.50 %    33.20 %    17.58 %    13.67 %     "
              "9.77 %  of the original in bfloat16\n");
    assert_contains(text, "    0 55.#    1 ..##\n");
    char parameters[64];
    snprintf(parameters, sizeof parameters, "%lld (0.01 M)", (long long)model.params.count);
    assert_contains(text, parameters);
    shape_set_healed(&model.shape, 32);
    assert_ok(hf_save(&model, NULL, DTYPE_BF16, dir));
    assert_contains(output_of(OK, dir), "  healed on     sequences of 32 tokens\n");
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
    assert_contains(text, "  tokenizer     none in the directory\n");
    assert_contains(output_of(OK, GOLDEN_DIR "/models/smollm3"),
                    "RoPE theta 10000 (none in 1 of 3 layers), ");
    assert_contains(output_of(OK, CONFIGS_DIR "/demo/model"),
                    "  tokenizer     sha256 649375ad4601961178557be68280276cb05f3d4ef4cdb22b");
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
    assert_contains(text, "aaaa\n  source        web text\n"
                          "  first         5 6 7 0 8 9 0\n"
                          "  checksums     of what is shown here are right; --verify reads");
    write_shard(path, -1);
    assert_contains(output_of(OK, path), "  document end  no token of its own\n");
}

#define TOKENIZER CONFIGS_DIR "/demo/model"
static const char *const with_tokenizer[3] = {"--tokenizer", TOKENIZER};
static const char *const verified[3] = {"--verify"};
static const char *const verified_with_tokenizer[3] = {"--verify", "--tokenizer", TOKENIZER};

// A shard of 20000 tokens, more than two chunks, that begins with a text.
static const char *write_text_shard(void)
{
    const char *path = testing_path(shared_dir(), "text.h5");
    static int32_t ids[20000];
    Tokenizer *tokenizer;
    TokenBuffer buffer = {0};
    assert_ok(tokenizer_load(&tokenizer, TOKENIZER));
    assert_ok(tokenizer_encode(tokenizer, &buffer, "\"Hi\"\nOnce.", 10, false));
    ShardInfo info = {.vocab_size = tokenizer_vocab_size(tokenizer), .eos_id = 0};
    snprintf(info.tokenizer_sha256, sizeof info.tokenizer_sha256, "%s",
             tokenizer_sha256(tokenizer));
    ShardWriter *writer;
    assert_ok(shard_create(&writer, path, &info));
    assert_ok(shard_append(writer, buffer.ids, buffer.count));
    for (int i = 0; i < 20000; i++)
        ids[i] = (int32_t)(random_bits(1, (uint64_t)i) % 1024);
    ids[0] = 0;
    assert_ok(shard_append(writer, ids, 20000));
    assert_ok(shard_finish(writer));
    token_buffer_release(&buffer);
    tokenizer_release(tokenizer);
    return path;
}

static void test_first_tokens_as_text(void **state)
{
    (void)state;
    const char *path = write_text_shard();
    const char *text = output_with(OK, path, with_tokenizer);
    assert_contains(text, "  text          \"\\\"Hi\\\"\\nOnce.<|endoftext|>");
    write_shard(path, 0);
    output_with(BAD_INPUT, path, with_tokenizer);
    assert_non_null(strstr(fail_text(), "text.h5: made with tokenizer aaaaaaaaaaaa, the one in "));
}

static void test_verify_reads_every_chunk(void **state)
{
    (void)state;
    const char *path = write_text_shard();
    assert_contains(output_with(OK, path, verified),
                    "  checksums     right in all 4 chunks and over all tokens\n");
    // Where HDF5 has put the third chunk: the last bytes that change nothing else.
    FileMap map;
    assert_ok(file_map(&map, path));
    int n_found = 0;
    for (int64_t at = map.size_bytes - 2000; at > map.size_bytes - 8000; at -= 3000) {
        unsigned char *bytes = malloc((size_t)map.size_bytes);
        assert_non_null(bytes);
        memcpy(bytes, map.bytes, (size_t)map.size_bytes);
        bytes[at] ^= 1;
        const char *bad = testing_path(shared_dir(), "flipped.h5");
        assert_ok(file_write(bad, bytes, map.size_bytes));
        free(bytes);
        output_of(OK, bad);
        output_with(BAD_INPUT, bad, verified);
        assert_non_null(strstr(fail_text(), "flipped.h5: /tokens is damaged from "));
        n_found += strstr(fail_text(), "its checksum differs (chunk ") != NULL;
    }
    assert_int_equal(n_found, 2);
    file_unmap(&map);
}

static void test_nanoset(void **state)
{
    (void)state;
    const char *path = testing_path(shared_dir(), "a.ds");
    assert_ok(file_write(path, (uint16_t[]){5, 6, 7, 0, 8}, 10));
    output_of(BAD_INPUT, path);
    assert_non_null(strstr(fail_text(), "a.ds.index: missing"));
    assert_ok(file_write(testing_path(shared_dir(), "a.ds.index"), (uint64_t[]){4, 5}, 16));
    const char *text = output_of(OK, path);
    assert_contains(text, "a.ds: Nanoset, ids of 2 bytes\n"
                          "  tokens        5 (0.00 M)\n"
                          "  documents     2, 2.5 tokens on average\n"
                          "  tokenizer     not named in the file, and no checksums\n"
                          "  first         5 6 7 0 8\n");
    assert_contains(output_with(OK, path, verified_with_tokenizer),
                    "all tokens can be read, the highest id is 8\n");
    assert_ok(file_write(path, (uint16_t[]){5, 6, 7, 0, 1024}, 10));
    output_with(BAD_INPUT, path, verified_with_tokenizer);
    assert_non_null(strstr(fail_text(), "a.ds: token 4 is 1024, the vocabulary of "));
}

// Two layers, 2 query heads and 1 KV head of width 32: pair l + 3 has the largest norm in layer l.
static void test_scores(void **state)
{
    (void)state;
    const ModelShape shape = {
        .n_layers = 2, .n_heads = 2, .n_kv_heads = 1, .head_dim = 32, .rope_pairs = 16};
    const char *path = testing_path(shared_dir(), "scores.h5");
    RopeScores scores;
    assert_ok(rope_scores_create(&scores, &shape));
    *scores.n_tokens = 2000000;
    for (int l = 0; l < 2; l++) {
        for (int p = 0; p < 16; p++) {
            scores.k_norm[l * 16 + p] = 1;
            scores.q_norm[(2 * l) * 16 + p] = scores.q_norm[(2 * l + 1) * 16 + p] = p + 1;
        }
        scores.k_norm[l * 16 + 3 + l] = 100;
    }
    assert_ok(rope_scores_write(&scores, path));
    const char *text = output_of(OK, path);
    assert_contains(text, "scores.h5: RoPE scores, ");
    assert_contains(text, "  attention     2 query and 1 KV heads of width 32: 16 RoPE pairs\n"
                          "  tokens        2000000 (2.00 M)\n"
                          "Kept by --rope 2-norm --rope-pairs 2, fastest first");
    assert_contains(text, "    0 ...#...........#    1 ....#..........#\n");
    *scores.n_tokens = 0;
    assert_ok(rope_scores_write(&scores, path));
    output_of(BAD_INPUT, path);
    assert_non_null(strstr(fail_text(), "scores.h5: "));
    output_with(BAD_INPUT, path, verified);
    rope_scores_release(&scores);
}

static void test_scores_of_no_model_are_refused(void **state)
{
    (void)state;
    const ModelShape shape = {
        .n_layers = 1, .n_heads = 3, .n_kv_heads = 2, .head_dim = 4, .rope_pairs = 2};
    const char *path = testing_path(shared_dir(), "odd.h5");
    RopeScores scores;
    assert_ok(rope_scores_create(&scores, &shape));
    assert_ok(rope_scores_write(&scores, path));
    output_of(BAD_INPUT, path);
    assert_non_null(strstr(fail_text(), "odd.h5: 3 query heads do not divide among 2 KV"));
    rope_scores_release(&scores);
}

#define RUN_JSON                                                                                   \
    "{\"format\": \"mha2mla-run\", \"name\": \"ab\", \"attention\": \"mla\", \"d_kv\": 8,"         \
    " \"rope_pairs\": 2, \"head_dim\": 32, \"rope\": \"2-norm\", \"svd\": \"joint\", "             \
    "\"seq_len\": 256,"                                                                            \
    " \"parameters\": 997120, \"cache_numbers_per_token\": 120,"                                   \
    " \"original_cache_numbers_per_token\": 640, \"tokens_per_step\": 8192, \"steps\": 60,"        \
    " \"ranks\": 2, \"threads\": 1, \"original_valid_loss\": 0.6182"
#define STEP_LINE                                                                                  \
    "{\"step\": 20, \"tokens\": 163840, \"loss\": 0.9582, \"grad_norm\": 1.0, \"lr\": 0.001,"      \
    " \"tokens_per_s\": 3522.4, \"elapsed_s\": 3723.9}\n"
#define VALID_LINE(step, tokens, loss)                                                             \
    "{\"step\": " step ", \"tokens\": " tokens ", \"valid_loss\": " loss "}\n"

// A run directory with these two files.
static const char *write_run(const char *run_json, const char *metrics)
{
    const char *dir = testing_path(shared_dir(), "run");
    assert_ok(file_make_dirs(dir));
    assert_ok(file_write(testing_path(dir, "run.json"), run_json, (int64_t)strlen(run_json)));
    assert_ok(file_write(testing_path(dir, "metrics.jsonl"), metrics, (int64_t)strlen(metrics)));
    return dir;
}

static void test_run_directory(void **state)
{
    (void)state;
    const char *dir = write_run(RUN_JSON ", \"pretraining_tokens\": 6550000}",
                                VALID_LINE("0", "0", "3.5548") VALID_LINE("10", "81920", "0.9387")
                                    STEP_LINE VALID_LINE("20", "163840", "1.0") "{\"step\": 2");
    const char *text = output_of(OK, dir);
    assert_contains(text, "run: run ab\n"
                          "  attention     MLA: d_kv 8 per KV head, 2 RoPE pairs by 2-norm, joint");
    assert_contains(text,
                    "240 bytes per token at 16 bits, original 1280: -81.25 %\n"
                    "  budget        60 steps of 8192 tokens = 0.4915 M, 7.5 % of pretraining");
    assert_contains(
        text, "  progress      stopped, step 20 of 60, 0.1638 M tokens in 1:02:03, 3522 tokens/s\n"
              "  loss          0.9582 nats per token at step 20\n"
              "validation loss\n"
              "  original      0.6182 nats per token\n"
              "  at the start  3.5548 nats per token\n"
              "  lowest        0.9387 nats per token at step 10\n"
              "  newest        1.0000 nats per token at step 20\n");
    assert_contains(text, "results\n  model         not exported yet\n");
    assert_ok(file_make_dirs(testing_path(dir, "model")));
    assert_ok(file_write(testing_path(testing_path(dir, "model"), "config.json"), "{}", 2));
    assert_contains(output_of(OK, dir), "/run/model\n");
}

static void test_run_that_has_not_begun(void **state)
{
    (void)state;
    const char *text = output_of(OK, write_run(RUN_JSON "}", ""));
    assert_contains(text, "  progress      stopped, step 0 of 60\nvalidation loss\n");
    assert_contains(text, "  not measured yet\n");
    assert_null(strstr(text, "pretraining"));
}

static void test_damaged_run_is_refused(void **state)
{
    (void)state;
    const struct {
        const char *run_json, *metrics, *expected;
    } cases[] = {
        {"{}", "", "run.json: 'format' is missing"},
        {"{\"format\": \"other\"}", "", "its format is 'other', not 'mha2mla-run'"},
        {"{\"format\": \"mha2mla-run\"}", "", "'name' is missing"},
        {RUN_JSON ", \"pretraining_tokens\": \"many\"}", "", "'pretraining_tokens' is "},
        {RUN_JSON "}", "{\"step\": 1}\n", "metrics.jsonl:1: 'tokens' is missing"},
        {RUN_JSON "}", STEP_LINE "nonsense\n", "metrics.jsonl:2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        output_of(BAD_INPUT, write_run(cases[i].run_json, cases[i].metrics));
        if (strstr(fail_text(), cases[i].expected) == NULL)
            fail_msg("case %zu: '%s', expected '%s'", i, fail_text(), cases[i].expected);
    }
}

static void test_options_for_tokens_are_refused_elsewhere(void **state)
{
    (void)state;
    output_with(BAD_INPUT, GOLDEN_DIR "/models/mqa_sharded", verified);
    assert_non_null(strstr(fail_text(), "--verify is for token files"));
}

static void test_what_cannot_be_inspected_is_named(void **state)
{
    (void)state;
    output_of(BAD_INPUT, testing_absent("x"));
    assert_non_null(strstr(fail_text(), "/absent/x: neither a file nor a directory"));
    output_of(BAD_INPUT, shared_dir());
    assert_non_null(strstr(fail_text(), "not a Hugging Face model"));
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
        cmocka_unit_test(test_first_tokens_as_text),
        cmocka_unit_test(test_verify_reads_every_chunk),
        cmocka_unit_test(test_nanoset),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_scores_of_no_model_are_refused),
        cmocka_unit_test(test_run_directory),
        cmocka_unit_test(test_run_that_has_not_begun),
        cmocka_unit_test(test_damaged_run_is_refused),
        cmocka_unit_test(test_options_for_tokens_are_refused_elsewhere),
        cmocka_unit_test(test_what_cannot_be_inspected_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
