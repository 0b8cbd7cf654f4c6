// data/shards/shard: round trips, whole-or-nothing writing, and every kind of damage.
#include "tests/support/testing.h"
#include "tests/support/testing_shard.h"

#include "base/file.h"
#include "base/random.h"
#include "data/shards/shard.h"

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
    testing_documents(offsets, path, 0, 246);
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

// Random 16-bit ids do not shrink: HDF5 leaves deflate out of such chunks.
static void test_round_trip_of_what_deflate_cannot_shrink(void **state)
{
    (void)state;
    check_round_trip(65536);
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
    const char *dir = testing_dir(), *path = testing_path(dir, "a.h5");
    ShardInfo info = info_of(10);
    ShardWriter *writer;
    assert_ok(shard_create(&writer, path, &info));
    const int32_t good = 9, bad = 10;
    assert_ok(shard_append(writer, &good, 1));
    assert_int_equal(testing_count_files(dir), 1);
    assert_false(file_exists(path));
    assert_fails(BAD_INPUT, "document 1 has token id 10, the vocabulary has 10",
                 shard_append(writer, &bad, 1));
    shard_abandon(writer);
    assert_int_equal(testing_count_files(dir), 0);
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
    assert_fails(FAILED, "/absent/a.h5: cannot be written: No such file",
                 shard_create(&writer, testing_absent("a.h5"), &info));
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

// Writes a token through HDF5, which renews the checksum of its chunk.
static void rewrite_token(const char *path, int64_t at, int32_t value)
{
    const hsize_t start = (hsize_t)at, one = 1;
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t dataset = H5Dopen2(file, "tokens", H5P_DEFAULT);
    const hid_t space = H5Dget_space(dataset), memory = H5Screate_simple(1, &one, NULL);
    assert_true(H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &one, NULL) >= 0);
    assert_true(H5Dwrite(dataset, H5T_NATIVE_INT32, memory, space, H5P_DEFAULT, &value) >= 0);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(dataset);
    assert_true(H5Fclose(file) >= 0);
}

static Status verify(const char *path)
{
    Shard *shard;
    int64_t n_chunks;
    TRY(shard_open(&shard, path));
    const Status status = shard_verify(shard, &n_chunks);
    shard_close(shard);
    return status;
}

static void test_tokens_that_were_changed_are_told(void **state)
{
    (void)state;
    static const int sizes[] = {49152, 151936};
    for (int i = 0; i < 2; i++) {
        const char *path = make_shard("a.h5", sizes[i]);
        assert_ok(verify(path));
        const int32_t before = token(20000, sizes[i]);
        rewrite_token(path, 20000, before ^ 1);
        assert_fails(BAD_INPUT, "a.h5: its tokens were changed after it was written", verify(path));
        rewrite_token(path, 20000, before);
        assert_ok(verify(path));
    }
}

// A flipped bit anywhere is refused or harmless: the tokens are never silently other ones.
static void test_flipped_bits_never_change_tokens(void **state)
{
    (void)state;
    const char *whole = make_shard("a.h5", 49152), *path = testing_path(testing_dir(), "flip.h5");
    FileMap map;
    assert_ok(file_map(&map, whole));
    unsigned char *bytes = malloc((size_t)map.size_bytes);
    assert_non_null(bytes);
    memcpy(bytes, map.bytes, (size_t)map.size_bytes);
    int n_refused = 0, n_tried = 0;
    for (int64_t at = 0; at < map.size_bytes; at += 149) {
        const unsigned char bit = (unsigned char)(1u << at % 8);
        bytes[at] ^= bit;
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(bytes, 1, (size_t)map.size_bytes, file), map.size_bytes);
        assert_int_equal(fclose(file), 0);
        bytes[at] ^= bit;
        bool same = false;
        const Status status = read_all(path, 49152, &same);
        if (status == OK && !same)
            fail_msg("bit %d of byte %lld: other tokens, no error", (int)(at % 8), (long long)at);
        n_refused += status == BAD_INPUT;
        n_tried++;
    }
    assert_true(n_refused > n_tried * 8 / 10); // the rest is unused room; seen 416 of 443
    free(bytes);
    file_unmap(&map);
}

// Opens the file's root for changes; the caller closes.
static hid_t open_to_change(const char *path)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void put_attribute(const char *path, const char *name, hid_t type, const void *value)
{
    hid_t file = open_to_change(path), space = H5Screate(H5S_SCALAR);
    assert_true(H5Adelete(file, name) >= 0);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, type, value) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Fclose(file);
}

static void put_text(const char *path, const char *name, const char *text, size_t size)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, size);
    put_attribute(path, name, type, size == H5T_VARIABLE ? (const void *)&text : text);
    H5Tclose(type);
}

static void test_missing_attributes_are_named(void **state)
{
    (void)state;
    static const char *const names[] = {"format",     "version", "tokenizer_sha256",
                                        "vocab_size", "eos_id",  "source"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *path = make_shard("a.h5", 300);
        hid_t file = open_to_change(path);
        assert_true(H5Adelete(file, names[i]) >= 0);
        H5Fclose(file);
        char text[64];
        snprintf(text, sizeof text, "attribute '%s' is missing", names[i]);
        assert_fails(BAD_INPUT, text, open_and_close(path));
    }
}

static void test_wrong_attributes_are_refused(void **state)
{
    (void)state;
    const char *path = make_shard("a.h5", 300);
    const int64_t version = 2, no_vocab = 0, eos = 300, good_eos = 299, pair[2] = {1, 1};
    const double real = 300;
    put_attribute(path, "eos_id", H5T_NATIVE_INT64, &eos);
    assert_fails(BAD_INPUT, "'eos_id' is 300, allowed are -1 to 299", open_and_close(path));
    put_attribute(path, "eos_id", H5T_NATIVE_INT64, &good_eos);
    assert_ok(open_and_close(path));
    put_attribute(path, "vocab_size", H5T_NATIVE_INT64, &no_vocab);
    assert_fails(BAD_INPUT, "'vocab_size' is 0", open_and_close(path));
    put_attribute(path, "vocab_size", H5T_NATIVE_DOUBLE, &real);
    assert_fails(BAD_INPUT, "'vocab_size' is not one whole number", open_and_close(path));
    put_attribute(path, "version", H5T_NATIVE_INT64, &version);
    assert_fails(BAD_INPUT, "'version' is 2, allowed are 1 to 1", open_and_close(path));
    hid_t two = H5Tarray_create2(H5T_NATIVE_INT64, 1, &(hsize_t){2});
    put_attribute(path, "version", two, pair);
    H5Tclose(two);
    assert_fails(BAD_INPUT, "'version' is not one whole number", open_and_close(path));
    put_text(path, "format", "other\nformat", 12);
    assert_fails(BAD_INPUT, "its format is 'other format'", open_and_close(path));
    put_attribute(path, "format", H5T_NATIVE_INT64, &version);
    assert_fails(BAD_INPUT, "'format' is not one text", open_and_close(path));
    path = make_shard("b.h5", 300);
    put_text(path, "tokenizer_sha256", SHA "0", 66);
    assert_fails(BAD_INPUT, "not 64 hexadecimal digits", open_and_close(path));
}

// As h5py writes text.
static void test_text_of_variable_length_is_read(void **state)
{
    (void)state;
    const char *path = make_shard("a.h5", 300);
    put_text(path, "format", "mha2mla-tokens", H5T_VARIABLE);
    put_text(path, "source", "by another program", H5T_VARIABLE);
    Shard *shard;
    assert_ok(shard_open(&shard, path));
    assert_string_equal(shard_info(shard)->source, "by another program");
    shard_close(shard);
}

static void test_missing_data_sets_are_named(void **state)
{
    (void)state;
    static const char *const names[] = {"tokens", "documents"};
    for (size_t i = 0; i < 2; i++) {
        const char *path = make_shard("a.h5", 300);
        hid_t file = open_to_change(path);
        assert_true(H5Ldelete(file, names[i], H5P_DEFAULT) >= 0);
        H5Fclose(file);
        char text[64];
        snprintf(text, sizeof text, "a.h5: data set /%s cannot be opened", names[i]);
        assert_fails(BAD_INPUT, text, open_and_close(path));
    }
}

// Puts another /tokens of four values in place: of `type`, with the filters of `plist`.
static const char *replace_tokens(hid_t type, hid_t plist)
{
    const char *path = make_shard("a.h5", 300);
    const hsize_t four = 4;
    hid_t file = open_to_change(path), space = H5Screate_simple(1, &four, NULL);
    assert_true(H5Ldelete(file, "tokens", H5P_DEFAULT) >= 0);
    hid_t dataset = H5Dcreate2(file, "tokens", type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(dataset >= 0);
    H5Dclose(dataset);
    H5Sclose(space);
    H5Fclose(file);
    return path;
}

static void test_other_types_and_filters_are_refused(void **state)
{
    (void)state;
    const hsize_t chunk = 4;
    const char *text = "/tokens is not one row of little-endian uint16";
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    assert_fails(BAD_INPUT, text, open_and_close(replace_tokens(H5T_STD_U16LE, plist)));
    H5Pset_chunk(plist, 1, &chunk);
    assert_fails(BAD_INPUT, text, open_and_close(replace_tokens(H5T_STD_U16LE, plist)));
    H5Pset_shuffle(plist);
    H5Pset_deflate(plist, 1);
    assert_fails(BAD_INPUT, text, open_and_close(replace_tokens(H5T_STD_U16LE, plist)));
    H5Pset_fletcher32(plist);
    assert_fails(BAD_INPUT, text, open_and_close(replace_tokens(H5T_STD_I16LE, plist)));
    assert_fails(BAD_INPUT, text, open_and_close(replace_tokens(H5T_STD_U32LE, plist)));
    assert_fails(BAD_INPUT, text, open_and_close(replace_tokens(H5T_IEEE_F32LE, plist)));
    // Now all is right but the offsets, which belong to the old tokens.
    assert_fails(BAD_INPUT, "of 4 tokens; offsets start at 0",
                 open_and_close(replace_tokens(H5T_STD_U16LE, plist)));
    H5Pclose(plist);
}

// Writes `value` over /documents[at].
static const char *put_offset(hsize_t at, uint64_t value)
{
    const char *path = make_shard("a.h5", 300);
    const hsize_t one = 1;
    hid_t file = open_to_change(path), dataset = H5Dopen2(file, "documents", H5P_DEFAULT);
    hid_t space = H5Dget_space(dataset), memory = H5Screate_simple(1, &one, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, &at, NULL, &one, NULL);
    assert_true(H5Dwrite(dataset, H5T_NATIVE_UINT64, memory, space, H5P_DEFAULT, &value) >= 0);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(dataset);
    H5Fclose(file);
    return path;
}

static void test_wrong_offsets_are_refused(void **state)
{
    (void)state;
    assert_fails(BAD_INPUT, "/documents[0] is 1 after 0", open_and_close(put_offset(0, 1)));
    assert_fails(BAD_INPUT, "/documents[5] is 9 after 10", open_and_close(put_offset(5, 9)));
    assert_fails(BAD_INPUT, "/documents[7] is 30001 after 21, of 30000 tokens",
                 open_and_close(put_offset(7, N_TOKENS + 1)));
    assert_fails(BAD_INPUT, "/documents[7] is 9223372036854775807 after 21",
                 open_and_close(put_offset(7, UINT64_MAX)));
    assert_fails(BAD_INPUT, "end at token 29999, but it has 30000",
                 open_and_close(put_offset(245, N_TOKENS - 1)));
}

static void test_empty_data_sets_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"tokens", "documents"};
    for (size_t i = 0; i < 2; i++) {
        const char *path = make_shard("a.h5", 300);
        const hsize_t none = 0;
        hid_t file = open_to_change(path), dataset = H5Dopen2(file, names[i], H5P_DEFAULT);
        assert_true(H5Dset_extent(dataset, &none) >= 0);
        H5Dclose(dataset);
        H5Fclose(file);
        assert_fails(BAD_INPUT, "a.h5: empty: ", open_and_close(path));
    }
}

// The file claims more tokens than it has chunks for.
static void test_missing_chunks_are_refused_when_read(void **state)
{
    (void)state;
    const char *path = put_offset(245, 100 * N_TOKENS);
    const hsize_t more = 100 * N_TOKENS;
    hid_t file = open_to_change(path), dataset = H5Dopen2(file, "tokens", H5P_DEFAULT);
    assert_true(H5Dset_extent(dataset, &more) >= 0);
    H5Dclose(dataset);
    H5Fclose(file);
    Shard *shard;
    int32_t id;
    assert_ok(shard_open(&shard, path));
    assert_fails(BAD_INPUT, "/tokens is damaged from 991232 to 999423: it is missing",
                 shard_read(shard, 999000, 1, &id));
    shard_close(shard);
}

// To look for each of these chunks would take years.
static void test_lengths_beyond_the_file_are_refused(void **state)
{
    (void)state;
    const hsize_t length = (hsize_t)1 << 59;
    const char *path = put_offset(245, length);
    hid_t file = open_to_change(path), dataset = H5Dopen2(file, "tokens", H5P_DEFAULT);
    assert_true(H5Dset_extent(dataset, &length) >= 0);
    H5Dclose(dataset);
    H5Fclose(file);
    assert_fails(BAD_INPUT, "/tokens has 576460752303423488 values, too many for a file of",
                 open_and_close(path));
}

static void test_ids_beyond_the_vocabulary_are_refused_when_read(void **state)
{
    (void)state;
    const int64_t vocab_size = 200;
    bool same;
    const char *path = make_shard("a.h5", 300);
    put_attribute(path, "vocab_size", H5T_NATIVE_INT64, &vocab_size);
    assert_fails(BAD_INPUT, ", the vocabulary has 200; damaged?", read_all(path, 300, &same));
}

static void test_verify_names_the_first_chunk_and_counts_the_rest(void **state)
{
    (void)state;
    const int64_t vocab_size = 200;
    const char *path = make_shard("a.h5", 300);
    int64_t n_chunks = 0;
    Shard *shard;
    assert_ok(shard_open(&shard, path));
    assert_ok(shard_verify(shard, &n_chunks));
    assert_int_equal(n_chunks, 4 + 1);
    shard_close(shard);
    put_attribute(path, "vocab_size", H5T_NATIVE_INT64, &vocab_size);
    assert_ok(shard_open(&shard, path));
    assert_fails(BAD_INPUT, "the vocabulary has 200; damaged?; 4 of 4 chunks are damaged",
                 shard_verify(shard, &n_chunks));
    shard_close(shard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_in_16_bits),
        cmocka_unit_test(test_round_trip_in_32_bits),
        cmocka_unit_test(test_round_trip_of_what_deflate_cannot_shrink),
        cmocka_unit_test(test_all_65536_ids_fit_16_bits),
        cmocka_unit_test(test_many_documents),
        cmocka_unit_test(test_abandoned_writer_leaves_nothing),
        cmocka_unit_test(test_empty_shard_is_not_written),
        cmocka_unit_test(test_writer_refuses_bad_info),
        cmocka_unit_test(test_not_a_shard_is_refused),
        cmocka_unit_test(test_truncated_files_are_refused),
        cmocka_unit_test(test_tokens_that_were_changed_are_told),
        cmocka_unit_test(test_flipped_bits_never_change_tokens),
        cmocka_unit_test(test_missing_attributes_are_named),
        cmocka_unit_test(test_wrong_attributes_are_refused),
        cmocka_unit_test(test_text_of_variable_length_is_read),
        cmocka_unit_test(test_missing_data_sets_are_named),
        cmocka_unit_test(test_other_types_and_filters_are_refused),
        cmocka_unit_test(test_wrong_offsets_are_refused),
        cmocka_unit_test(test_empty_data_sets_are_refused),
        cmocka_unit_test(test_missing_chunks_are_refused_when_read),
        cmocka_unit_test(test_lengths_beyond_the_file_are_refused),
        cmocka_unit_test(test_ids_beyond_the_vocabulary_are_refused_when_read),
        cmocka_unit_test(test_verify_names_the_first_chunk_and_counts_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
