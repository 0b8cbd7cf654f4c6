// data/shards/nanoset and token_file: both widths of tokens, files that do not match their index,
// and Nanosets as sources.
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/log.h"
#include "data/mixture.h"
#include "data/shards/nanoset.h"
#include "data/shards/shard.h"
#include "data/shards/source.h"
#include "data/shards/token_file.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { N_TOKENS = 10000, N_DOCUMENTS = 3, VOCAB = 60000 };

static const uint64_t usual_ends[N_DOCUMENTS] = {1, 9000, N_TOKENS};

static uint32_t id_of(int64_t i)
{
    return (uint32_t)(i * 7919 % VOCAB);
}

// x86-64 is little-endian, as the files are.
static const char *write_index(const char *path, const uint64_t *ends, size_t n_ends)
{
    char index[PATH_BYTES + 8];
    snprintf(index, sizeof index, "%s.index", path);
    assert_ok(file_write(index, ends, (int64_t)(n_ends * sizeof *ends)));
    return path;
}

static const char *write_nanoset(int token_bytes)
{
    static uint16_t narrow[N_TOKENS];
    static uint32_t wide[N_TOKENS];
    for (int i = 0; i < N_TOKENS; i++) {
        wide[i] = id_of(i);
        narrow[i] = (uint16_t)wide[i];
    }
    const char *path = testing_path(testing_dir(), "a.ds");
    const void *ids = token_bytes == 2 ? (const void *)narrow : (const void *)wide;
    assert_ok(file_write(path, ids, (int64_t)N_TOKENS * token_bytes));
    return write_index(path, usual_ends, N_DOCUMENTS);
}

static void check_reads(int token_bytes)
{
    const char *path = write_nanoset(token_bytes);
    static int32_t ids[N_TOKENS];
    Nanoset *nanoset;
    assert_ok(nanoset_open(&nanoset, path));
    assert_int_equal(nanoset_token_bytes(nanoset), token_bytes);
    assert_int_equal(nanoset_n_tokens(nanoset), N_TOKENS);
    assert_int_equal(nanoset_n_documents(nanoset), N_DOCUMENTS);
    static const int64_t ranges[][2] = {{0, N_TOKENS}, {4095, 2}, {9999, 1}, {17, 8300}, {5, 0}};
    for (size_t r = 0; r < sizeof ranges / sizeof ranges[0]; r++) {
        assert_ok(nanoset_read(nanoset, ranges[r][0], ranges[r][1], ids));
        for (int64_t i = 0; i < ranges[r][1]; i++)
            assert_int_equal(ids[i], id_of(ranges[r][0] + i));
    }
    nanoset_close(nanoset);
}

static void test_ids_of_two_bytes(void **state)
{
    (void)state;
    check_reads(2);
}

static void test_ids_of_four_bytes(void **state)
{
    (void)state;
    check_reads(4);
}

static Status open_and_close(const char *path)
{
    Nanoset *nanoset;
    TRY(nanoset_open(&nanoset, path));
    nanoset_close(nanoset);
    return OK;
}

static void test_missing_files_are_named(void **state)
{
    (void)state;
    const char *path = write_nanoset(2);
    char index[PATH_BYTES + 8];
    snprintf(index, sizeof index, "%s.index", path);
    assert_int_equal(unlink(path), 0);
    assert_fails(BAD_INPUT, "a.ds: cannot be opened: No such file", open_and_close(path));
    assert_ok(file_make_dirs(path));
    assert_fails(BAD_INPUT, "a.ds: is a directory, not a regular file", open_and_close(path));
    assert_int_equal(unlink(index), 0);
    assert_fails(BAD_INPUT, "a.ds.index: missing; a Nanoset is NAME.ds and NAME.ds.index together",
                 open_and_close(path));
}

static void test_inconsistent_indexes_are_refused(void **state)
{
    (void)state;
    const char *path = write_nanoset(2);
    char index[PATH_BYTES + 8];
    snprintf(index, sizeof index, "%s.index", path);
    assert_ok(file_write(index, "", 0));
    assert_fails(BAD_INPUT, "a.ds.index: 0 bytes are not one or more uint64", open_and_close(path));
    assert_ok(file_write(index, usual_ends, 20));
    assert_fails(BAD_INPUT, "a.ds.index: 20 bytes are not", open_and_close(path));
    write_index(path, usual_ends, 2);
    assert_fails(BAD_INPUT,
                 "a.ds: has 20000 bytes, its index ends at token 9000, which takes 18000",
                 open_and_close(path));
    write_index(path, (uint64_t[]){5, 4, N_TOKENS}, 3);
    assert_fails(BAD_INPUT, "a.ds.index: document 1 ends at token 4, the one before at 5",
                 open_and_close(path));
    write_index(path, (uint64_t[]){5, UINT64_MAX}, 2);
    assert_fails(BAD_INPUT, "document 1 ends at token 18446744073709551615", open_and_close(path));
    write_index(path, (uint64_t[]){0, 0}, 2);
    assert_fails(BAD_INPUT, "a.ds: empty", open_and_close(path));
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    const char *path = write_nanoset(4);
    for (off_t size = N_TOKENS * 4 - 1; size >= 0; size -= size > 10 ? 997 : 1) {
        assert_int_equal(truncate(path, size), 0);
        assert_fails(BAD_INPUT, "truncated, or the index of another file", open_and_close(path));
    }
}

static void test_file_that_shrinks_while_in_use_is_an_error(void **state)
{
    (void)state;
    const char *path = write_nanoset(2);
    int32_t ids[10];
    Nanoset *nanoset;
    assert_ok(nanoset_open(&nanoset, path));
    assert_int_equal(truncate(path, 2 * 995 + 1), 0);
    assert_fails(BAD_INPUT, "a.ds: ends at byte 1991; it became shorter while in use",
                 nanoset_read(nanoset, 990, 10, ids));
    assert_ok(nanoset_read(nanoset, 985, 10, ids));
    nanoset_close(nanoset);
}

static void test_impossible_ids_are_refused(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "a.ds");
    assert_ok(file_write(path, (uint32_t[]){5, 0x80000000u}, 8));
    write_index(path, (uint64_t[]){2}, 1);
    int32_t ids[2];
    Nanoset *nanoset;
    assert_ok(nanoset_open(&nanoset, path));
    assert_fails(BAD_INPUT, "a.ds: token 1 is 2147483648, no id is that large",
                 nanoset_read(nanoset, 0, 2, ids));
    nanoset_close(nanoset);
}

// ---- As training sources -----------------------------------------------------------------------

#define SHA_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SHA_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static char *write_shard(const char *dir, const char *name, const char *sha256)
{
    char *path = (char *)(uintptr_t)testing_path(dir, name);
    ShardInfo info = {.vocab_size = VOCAB, .eos_id = 0};
    snprintf(info.tokenizer_sha256, sizeof info.tokenizer_sha256, "%s", sha256);
    ShardWriter *writer;
    int32_t ids[101];
    for (int i = 0; i < 101; i++)
        ids[i] = (int32_t)id_of(i);
    assert_ok(shard_create(&writer, path, &info));
    assert_ok(shard_append(writer, ids, 101));
    assert_ok(shard_finish(writer));
    return path;
}

static void test_source_reads_both_kinds(void **state)
{
    (void)state;
    enum { T = 100 };
    char *paths[] = {write_shard(testing_dir(), "s.h5", SHA_A),
                     (char *)(uintptr_t)write_nanoset(2)};
    Source *source;
    int32_t tokens[T + 1];
    assert_ok(source_open(&source, "both", paths, 2, T, SHA_A, VOCAB));
    assert_int_equal(source_n_samples(source), 1 + 99);
    assert_string_equal(source_tokenizer_sha256(source), SHA_A);
    assert_ok(source_read(source, 0, tokens));
    assert_int_equal(tokens[T], id_of(T));
    assert_ok(source_read(source, 99, tokens));
    for (int i = 0; i <= T; i++)
        assert_int_equal(tokens[i], id_of(98 * T + i));
    source_close(source);
}

static void test_ids_beyond_the_models_vocabulary_are_named(void **state)
{
    (void)state;
    char *path = (char *)(uintptr_t)write_nanoset(4);
    int32_t tokens[5];
    Source *source;
    assert_ok(source_open(&source, "a", &path, 1, 4, SHA_A, 7920));
    assert_fails(BAD_INPUT, "a.ds: token 2 is 15838, the model's vocabulary has 7920",
                 source_read(source, 0, tokens));
    source_close(source);
}

// Nothing to compare a Nanoset with does not mean that the shards beside it need not agree.
static void test_shards_beside_a_nanoset_must_agree(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    char *nanoset = (char *)(uintptr_t)write_nanoset(2);
    char *a = write_shard(dir, "a.h5", SHA_A), *b = write_shard(dir, "b.h5", SHA_B);
    char *mixed[] = {nanoset, a, b};
    Source *source;
    assert_fails(BAD_INPUT,
                 "b.h5: made with tokenizer bbbbbbbbbbbb, the model (or the first shard)",
                 source_open(&source, "mixed", mixed, 3, 10, NULL, VOCAB));
    char name[] = "x";
    const SourceSpec specs[] = {{.name = name, .shards = &nanoset, .n_shards = 1, .weight = 1},
                                {.name = name, .shards = &a, .n_shards = 1, .weight = 1},
                                {.name = name, .shards = &b, .n_shards = 1, .weight = 1}};
    Mixture *mixture;
    assert_ok(mixture_open(&mixture, specs, 2, 10, 1, NULL, VOCAB));
    mixture_close(mixture);
    assert_fails(BAD_INPUT, "b.h5: made with tokenizer bbbbbbbbbbbb",
                 mixture_open(&mixture, specs, 3, 10, 1, NULL, VOCAB));
}

// Runs first, because the warning is said once per process.
static void test_unknown_tokenizer_is_warned_of_once(void **state)
{
    (void)state;
    char *path = (char *)(uintptr_t)write_nanoset(2);
    char said[1000] = "", name[PATH_BYTES];
    snprintf(name, sizeof name, "%s", testing_path(testing_dir(), "stderr"));
    FILE *file = fopen(name, "w+");
    const int saved = dup(STDERR_FILENO);
    assert_true(file != NULL && saved >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    log_set_quiet(false);
    Status status = OK;
    for (int i = 0; i < 2 && status == OK; i++) {
        Source *source;
        status = source_open(&source, "a", &path, 1, 10, SHA_A, VOCAB);
        if (status == OK)
            source_close(source);
    }
    log_set_quiet(true);
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_ok(status);
    rewind(file);
    said[fread(said, 1, sizeof said - 1, file)] = '\0';
    fclose(file);
    const char *line = strstr(said, "a.ds: a Nanoset does not say which tokenizer made it");
    assert_non_null(line);
    assert_ptr_equal(strchr(line, '\n'), said + strlen(said) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_tokenizer_is_warned_of_once),
        cmocka_unit_test(test_ids_of_two_bytes),
        cmocka_unit_test(test_ids_of_four_bytes),
        cmocka_unit_test(test_missing_files_are_named),
        cmocka_unit_test(test_inconsistent_indexes_are_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_file_that_shrinks_while_in_use_is_an_error),
        cmocka_unit_test(test_impossible_ids_are_refused),
        cmocka_unit_test(test_source_reads_both_kinds),
        cmocka_unit_test(test_ids_beyond_the_models_vocabulary_are_named),
        cmocka_unit_test(test_shards_beside_a_nanoset_must_agree),
    };
    log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
