// data/shard: round trips, whole-or-nothing writing, and every kind of damage.
#include "tests/testing.h"

#include "base/file.h"
#include "base/random.h"
#include "data/shard.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

enum { N_TOKENS = 30000 };

static int32_t token(int64_t i, int vocab_size)
{
    return (int32_t)(random_bits(1, (uint64_t)i) % (uint64_t)vocab_size);
}

static ShardInfo info_of(int vocab_size)
{
    ShardInfo info = {.vocab_size = vocab_size, .eos_id = 0, .tokenizer_sha256 = SHA};
    strcpy(info.source, "the test");
    return info;
}

// N_TOKENS tokens in documents of 1, 2, 3 ... tokens.
static const char *make_shard(const char *name, int vocab_size)
{
    const char *path = testing_path(testing_dir(), name);
    ShardInfo info = info_of(vocab_size);
    ShardWriter *writer;
    assert_ok(shard_create(&writer, path, &info));
    static int32_t ids[N_TOKENS];
    for (int64_t at = 0, size = 1; at < N_TOKENS; at += size, size++) {
        if (size > N_TOKENS - at)
            size = N_TOKENS - at;
        for (int64_t i = 0; i < size; i++)
            ids[i] = token(at + i, vocab_size);
        assert_ok(shard_append(writer, ids, size));
    }
    assert_ok(shard_finish(writer));
    return path;
}

static Status open_and_close(const char *path)
{
    Shard *shard;
    TRY(shard_open(&shard, path));
    shard_close(shard);
    return OK;
}

// Opens, reads all, and reports whether the tokens are those written.
static Status read_all(const char *path, int vocab_size, bool *same)
{
    static int32_t ids[N_TOKENS];
    Shard *shard;
    TRY(shard_open(&shard, path));
    int64_t n = shard_info(shard)->n_tokens;
    Status status = n == N_TOKENS ? shard_read(shard, 0, n, ids) : OK;
    *same = n == N_TOKENS;
    for (int64_t i = 0; status == OK && i < n && *same; i++)
        *same = ids[i] == token(i, vocab_size);
    shard_close(shard);
    return status;
}

static void check_round_trip(int vocab_size)
{
    const char *path = make_shard("a.h5", vocab_size);
    Shard *shard;
    assert_ok(shard_open(&shard, path));
    const ShardInfo *info = shard_info(shard);
    assert_int_equal(info->n_tokens, N_TOKENS);
    assert_int_equal(info->n_documents, 245); // 1 + 2 + ... + 244 = 29890
    assert_int_equal(info->vocab_size, vocab_size);
    assert_int_equal(info->eos_id, 0);
    assert_string_equal(info->tokenizer_sha256, SHA);
    assert_string_equal(info->source, "the test");
    static const int64_t firsts[] = {0, 1, 8191, 8192, 16000, N_TOKENS - 500};
    int32_t ids[500];
    for (size_t f = 0; f < sizeof firsts / sizeof firsts[0]; f++) {
        assert_ok(shard_read(shard, firsts[f], 500, ids));
        for (int i = 0; i < 500; i++)
            assert_int_equal(ids[i], token(firsts[f] + i, vocab_size));
    }
    int64_t offsets[246];
    assert_ok(shard_read_offsets(shard, 0, 246, offsets));
    for (int i = 0; i < 245; i++)
        assert_int_equal(offsets[i], i * (i + 1) / 2);
    assert_int_equal(offsets[245], N_TOKENS);
    shard_close(shard);
}

static void test_round_trip_in_16_bits(void **state)
{
    (void)state;
    check_round_trip(49152);
}

static void test_round_trip_in_32_bits(void **state)
{
    (void)state;
    check_round_trip(151936);
}

static void test_all_65536_ids_fit_16_bits(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "full.h5");
    ShardInfo info = info_of(65536);
    ShardWriter *writer;
    assert_ok(shard_create(&writer, path, &info));
    int32_t ids[3] = {0, 65535, 32768}, back[3];
    assert_ok(shard_append(writer, ids, 3));
    assert_ok(shard_finish(writer));
    Shard *shard;
    assert_ok(shard_open(&shard, path));
    assert_ok(shard_read(shard, 0, 3, back));
    assert_memory_equal(ids, back, sizeof ids);
    shard_close(shard);
}

// More documents than one buffer of offsets, more tokens than one buffer of tokens.
static void test_many_documents(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "many.h5");
    ShardInfo info = info_of(300);
    ShardWriter *writer;
    assert_ok(shard_create(&writer, path, &info));
    const int32_t ids[] = {7, 8, 9, 10, 11, 12, 13};
    for (int i = 0; i < 20000; i++)
        assert_ok(shard_append(writer, ids, i % 8)); // every eighth is empty and left out
    assert_int_equal(shard_writer_n_documents(writer), 17500);
    assert_int_equal(shard_writer_n_tokens(writer), 70000);
    assert_ok(shard_finish(writer));
    Shard *shard;
    assert_ok(shard_open(&shard, path));
    assert_int_equal(shard_info(shard)->n_documents, 17500);
    assert_int_equal(shard_info(shard)->n_tokens, 70000);
    int32_t back[28];
    assert_ok(shard_read(shard, 70000 - 28, 28, back));
    assert_int_equal(back[0], 7);
    assert_int_equal(back[27], 13);
    shard_close(shard);
}

static void test_abandoned_writer_leaves_nothing(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "a.h5");
    char temporary[PATH_BYTES];
    snprintf(temporary, sizeof temporary, "%.4000s.tmp", path);
    ShardInfo info = info_of(10);
    ShardWriter *writer;
    assert_ok(shard_create(&writer, path, &info));
    const int32_t good = 9, bad = 10;
    assert_ok(shard_append(writer, &good, 1));
    assert_true(file_exists(temporary));
    assert_false(file_exists(path));
    assert_fails(BAD_INPUT, "document 1 has token id 10, the vocabulary has 10",
                 shard_append(writer, &bad, 1));
    shard_abandon(writer);
    assert_false(file_exists(temporary));
    assert_false(file_exists(path));
}

static void test_empty_shard_is_not_written(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "a.h5");
    ShardInfo info = info_of(10);
    ShardWriter *writer;
    assert_ok(shard_create(&writer, path, &info));
    assert_ok(shard_append(writer, NULL, 0));
    assert_fails(BAD_INPUT, "no tokens to write", shard_finish(writer));
    assert_false(file_exists(path));
}

static void test_writer_refuses_bad_info(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "a.h5");
    ShardWriter *writer;
    ShardInfo info = info_of(0);
    assert_fails(BAD_INPUT, "vocabulary size 0", shard_create(&writer, path, &info));
    info = info_of(10);
    info.eos_id = 10;
    assert_fails(BAD_INPUT, "eos id 10", shard_create(&writer, path, &info));
    info = info_of(10);
    info.tokenizer_sha256[5] = 'X';
    assert_fails(BAD_INPUT, "64 hexadecimal digits", shard_create(&writer, path, &info));
    info = info_of(10);
    assert_fails(FAILED, "/nonexistent/a.h5.tmp: cannot be written: No such file",
                 shard_create(&writer, "/nonexistent/a.h5", &info));
}

static void test_not_a_shard_is_refused(void **state)
{
    (void)state;
    const char *dir = testing_dir(), *path = testing_path(dir, "a.h5");
    assert_fails(BAD_INPUT, "No such file", open_and_close(path));
    assert_fails(BAD_INPUT, "is a directory", open_and_close(dir));
    assert_ok(file_write(path, "hello, not HDF5", 15));
    assert_fails(BAD_INPUT, "not a readable HDF5 file (HDF5: ", open_and_close(path));
    assert_ok(file_write(path, "", 0));
    assert_fails(BAD_INPUT, "not a readable HDF5 file", open_and_close(path));
}

static void test_truncated_files_are_refused(void **state)
{
    (void)state;
    const char *whole = make_shard("a.h5", 49152), *cut = testing_path(testing_dir(), "cut.h5");
    FileMap map;
    assert_ok(file_map(&map, whole));
    const int64_t sizes[] = {4, 8, 48, 100, 1000, map.size_bytes / 2, map.size_bytes - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_ok(file_write(cut, map.bytes, sizes[i]));
        assert_fails(BAD_INPUT, "cut.h5: not a readable HDF5 file (HDF5: ", open_and_close(cut));
    }
    file_unmap(&map);
}

// A flipped bit anywhere is refused or harmless: the tokens are never silently other ones.
static void test_flipped_bits_never_change_tokens(void **state)
{
    (void)state;
    const char *whole = make_shard("a.h5", 49152), *path = testing_path(testing_dir(), "flip.h5");
    FileMap map;
    assert_ok(file_map(&map, whole));
    const char *first = getenv("FLIP_FIRST"), *step = getenv("FLIP_STEP");
    int64_t refused = 0, tried = 0;
    unsigned char *bytes = malloc((size_t)map.size_bytes);
    assert_non_null(bytes);
    memcpy(bytes, map.bytes, (size_t)map.size_bytes);
    for (int64_t at = first != NULL ? atoll(first) : 0; at < map.size_bytes;
         at += step != NULL ? atoll(step) : 1) {
        for (int bit = 0; bit < 8; bit += 1) {
            unsigned char mask = (unsigned char)(1u << bit);
            bytes[at] ^= mask;
            FILE *f = fopen(path, "wb");
            fwrite(bytes, 1, (size_t)map.size_bytes, f);
            fclose(f);
            bytes[at] ^= mask;
            bool same = false;
            Status status = read_all(path, 49152, &same);
            if (status == OK && !same)
                fail_msg("bit %d of byte %lld: other tokens, no error", bit, (long long)at);
            refused += status != OK;
            tried++;
        }
    }
    print_message("refused %lld of %lld\n", (long long)refused, (long long)tried);
    free(bytes);
    file_unmap(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_in_16_bits),
        cmocka_unit_test(test_round_trip_in_32_bits),
        cmocka_unit_test(test_all_65536_ids_fit_16_bits),
        cmocka_unit_test(test_many_documents),
        cmocka_unit_test(test_abandoned_writer_leaves_nothing),
        cmocka_unit_test(test_empty_shard_is_not_written),
        cmocka_unit_test(test_writer_refuses_bad_info),
        cmocka_unit_test(test_not_a_shard_is_refused),
        cmocka_unit_test(test_truncated_files_are_refused),
        cmocka_unit_test(test_flipped_bits_never_change_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
