// data/text/tokenize: tokens before and after each document, several files, and runs that fail.
#include "tests/support/testing.h"
#include "tests/support/testing_shard.h"

#include "base/file.h"
#include "base/log.h"
#include "data/shards/shard.h"
#include "train/tokenize/tokenize_ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char byte_level[] = CONFIGS_DIR "/demo/model"; // no post-processor, eos is id 0

static char out_path[PATH_BYTES];

static Status tokenize_files(TokenizeCounts *out, const TokenizeOptions *options,
                             char *const *patterns, int n_patterns)
{
    const Comm alone = {.size = 1};
    return tokenize_over_ranks(out, &alone, options, patterns, n_patterns);
}

static char *write_text(const char *dir, const char *name, const char *content)
{
    const char *path = testing_path(dir, name);
    assert_ok(file_write(path, content, (int64_t)strlen(content)));
    return (char *)(uintptr_t)path;
}

static TokenizeOptions options_for(const char *dir)
{
    snprintf(out_path, sizeof out_path, "%s", testing_path(dir, "out.h5"));
    return (TokenizeOptions){.tokenizer_dir = byte_level, .out = out_path};
}

static void check_nothing_left(void)
{
    assert_false(file_exists(out_path));
    testing_no_temporaries(out_path);
}

// Decodes document `index` of the shard; special tokens are shown.
static void check_document(int64_t index, const char *expected)
{
    Shard *shard;
    Tokenizer *tokenizer;
    int64_t ends[2], size;
    int32_t ids[200];
    char *text;
    assert_ok(shard_open(&shard, out_path));
    assert_ok(tokenizer_load(&tokenizer, byte_level));
    testing_documents(ends, out_path, index, 2);
    assert_in_range(ends[1] - ends[0], 1, 200);
    assert_ok(shard_read(shard, ends[0], ends[1] - ends[0], ids));
    assert_ok(tokenizer_decode(tokenizer, ids, ends[1] - ends[0], &text, &size, false));
    assert_string_equal(text, expected);
    free(text);
    tokenizer_release(tokenizer);
    shard_close(shard);
}

static void test_documents_end_in_eos(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    char *files[] = {
        write_text(dir, "a.jsonl", "{\"text\": \"Once upon\"}\n{\"text\": \"a time\"}")};
    const TokenizeOptions options = options_for(dir);
    TokenizeCounts counts;
    assert_ok(tokenize_files(&counts, &options, files, 1));
    assert_int_equal(counts.n_documents, 2);
    assert_int_equal(counts.text_bytes, 15);
    check_document(0, "Once upon<|endoftext|>");
    check_document(1, "a time<|endoftext|>");
}

static void test_shard_tells_its_origin(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    char *files[] = {write_text(dir, "a.txt", "Once upon a time")};
    const TokenizeOptions options = options_for(dir);
    TokenizeCounts counts;
    assert_ok(tokenize_files(&counts, &options, files, 1));
    Shard *shard;
    Tokenizer *tokenizer;
    assert_ok(shard_open(&shard, out_path));
    assert_ok(tokenizer_load(&tokenizer, byte_level));
    const ShardInfo *info = shard_info(shard);
    assert_string_equal(info->tokenizer_sha256, tokenizer_sha256(tokenizer));
    assert_string_equal(info->source, files[0]);
    assert_int_equal(info->vocab_size, 1024);
    assert_int_equal(info->eos_id, 0);
    assert_int_equal(info->n_tokens, counts.n_tokens);
    tokenizer_release(tokenizer);
    shard_close(shard);
}

static void test_ends_are_chosen(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    char *files[] = {write_text(dir, "a.txt", "Once")};
    TokenizeOptions options = options_for(dir);
    TokenizeCounts counts;
    options.eos = "none";
    assert_ok(tokenize_files(&counts, &options, files, 1));
    check_document(0, "Once");
    Shard *shard;
    assert_ok(shard_open(&shard, out_path));
    assert_int_equal(shard_info(shard)->eos_id, -1);
    shard_close(shard);
    options.bos = "<|endoftext|>";
    assert_ok(tokenize_files(&counts, &options, files, 1));
    check_document(0, "<|endoftext|>Once");
    options.eos = "!";
    options.bos = "none";
    assert_ok(tokenize_files(&counts, &options, files, 1));
    check_document(0, "Once!");
}

// A copy of the demo tokenizer with `old` replaced throughout tokenizer.json, and no other file.
static void change_tokenizer(const char *dir, const char *old, const char *new)
{
    FileMap map;
    assert_ok(file_map(&map, CONFIGS_DIR "/demo/model/tokenizer.json"));
    char *content = calloc((size_t)map.size_bytes + 1, 1);
    assert_non_null(content);
    memcpy(content, map.bytes, (size_t)map.size_bytes);
    AtomicFile file;
    assert_ok(file_begin(&file, testing_path(dir, "tokenizer.json")));
    const char *from = content, *at = strstr(content, old);
    assert_non_null(at);
    for (; at != NULL; from = at + strlen(old), at = strstr(from, old))
        fprintf(file.stream, "%.*s%s", (int)(at - from), from, new);
    fputs(from, file.stream);
    assert_ok(file_commit(&file));
    free(content);
    file_unmap(&map);
}

static void test_post_processor_adds_its_tokens_once(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    change_tokenizer(dir, "\"post_processor\": null",
                     "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": ["
                     "{\"SpecialToken\": {\"id\": \"<|endoftext|>\", \"type_id\": 0}},"
                     "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}},"
                     "{\"SpecialToken\": {\"id\": \"<|endoftext|>\", \"type_id\": 0}}],"
                     "\"pair\": [{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}},"
                     "{\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}],"
                     "\"special_tokens\": {\"<|endoftext|>\": {\"id\": \"<|endoftext|>\","
                     "\"ids\": [0], \"tokens\": [\"<|endoftext|>\"]}}}");
    char *files[] = {write_text(dir, "a.txt", "Once")};
    TokenizeOptions options = options_for(dir);
    options.tokenizer_dir = dir;
    TokenizeCounts counts;
    assert_ok(tokenize_files(&counts, &options, files, 1));
    check_document(0, "<|endoftext|>Once<|endoftext|>");
    options.bos = "none";
    assert_ok(tokenize_files(&counts, &options, files, 1));
    check_document(0, "Once<|endoftext|>");
}

static void test_files_and_globs_follow_one_another(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    write_text(dir, "b-1.txt", "two");
    write_text(dir, "b-0.txt", "one");
    char *files[] = {write_text(dir, "z.jsonl", "{\"text\": \"zero\"}\n"), NULL};
    files[1] = (char *)(uintptr_t)testing_path(dir, "b-*.txt");
    const TokenizeOptions options = options_for(dir);
    TokenizeCounts counts;
    assert_ok(tokenize_files(&counts, &options, files, 2));
    assert_int_equal(counts.n_documents, 3);
    check_document(0, "zero<|endoftext|>");
    check_document(1, "one<|endoftext|>");
    check_document(2, "two<|endoftext|>");
}

static void check_refused(const TokenizeOptions *options, char *file, const char *text)
{
    TokenizeCounts counts;
    assert_fails(BAD_INPUT, text, tokenize_files(&counts, options, &file, 1));
    check_nothing_left();
}

static void test_failed_runs_leave_nothing(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    TokenizeOptions options = options_for(dir);
    char *good = write_text(dir, "good.txt", "Once");
    check_refused(&options, write_text(dir, "bad.jsonl", "{\"text\": \"x\"}\n{\"text\": 1}\n"),
                  "bad.jsonl:2: field 'text' is not a string");
    check_refused(&options, write_text(dir, "empty.txt", ""), "no tokens to write");
    check_refused(&options, write_text(dir, "a.csv", "x"), "a.csv: the name of a text file");
    char absent[PATH_BYTES];
    strcpy(absent, testing_absent("a.txt"));
    check_refused(&options, absent, "/absent/a.txt: no such file");
    options.eos = "<|nope|>";
    check_refused(&options, good, "--eos: the tokenizer in ");
    options.eos = NULL;
    options.bos = "<|nope|>";
    check_refused(&options, good, "has no token '<|nope|>'");
    options.bos = NULL;
    options.tokenizer_dir = dir;
    check_refused(&options, good, dir);
    options.tokenizer_dir = byte_level;
    options.out = good;
    check_refused(&options, good, "good.txt: the name of a shard ends in .h5");
    assert_true(file_exists(good));
}

static void test_stopped_run_leaves_nothing(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    char *file = write_text(dir, "good.txt", "Once");
    TokenizeOptions options = options_for(dir);
    const volatile sig_atomic_t stop = 1;
    options.stop = &stop;
    TokenizeCounts counts;
    assert_fails(FAILED, "out.h5 is not written", tokenize_files(&counts, &options, &file, 1));
    check_nothing_left();
}

static void test_skipped_faults_are_counted_over_all_files(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    TokenizeOptions options = options_for(dir);
    options.skip_faults = true;
    char *files[] = {write_text(dir, "a.jsonl", "{\"text\": \"one\"}\n{]\n{\"text\": 1}\n"),
                     write_text(dir, "b.jsonl", "{}\n{]\n{\"text\": \"two\"}\n")};
    TokenizeCounts counts;
    char said[TEXT_SKIPS_BYTES];
    log_set_quiet(true);
    assert_ok(tokenize_files(&counts, &options, files, 2));
    log_set_quiet(false);
    text_describe_skips(said, &counts.skipped);
    assert_string_equal(said, "2 lines of broken JSON, 1 line without the field, "
                              "1 line with no string in the field");
    assert_int_equal(counts.n_documents, 2);
    check_document(1, "two<|endoftext|>");
}

static void test_tokenizer_without_eos_asks_for_one(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    change_tokenizer(dir, "<|endoftext|>", "<|fin|>");
    TokenizeOptions options = options_for(dir);
    options.tokenizer_dir = dir;
    char *file = write_text(dir, "good.txt", "Once");
    check_refused(&options, file, "give one by --eos TOKEN, or --eos none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents_end_in_eos),
        cmocka_unit_test(test_shard_tells_its_origin),
        cmocka_unit_test(test_ends_are_chosen),
        cmocka_unit_test(test_post_processor_adds_its_tokens_once),
        cmocka_unit_test(test_files_and_globs_follow_one_another),
        cmocka_unit_test(test_failed_runs_leave_nothing),
        cmocka_unit_test(test_stopped_run_leaves_nothing),
        cmocka_unit_test(test_skipped_faults_are_counted_over_all_files),
        cmocka_unit_test(test_tokenizer_without_eos_asks_for_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
