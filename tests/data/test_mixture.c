// Sources and mixtures: samples over shards, shares at every point, permutation of epochs, purity.
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/json.h"
#include "data/mixture.h"
#include "data/shards/shard.h"
#include "data/shards/source.h"

#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { V = 60000, T = 10 };

static const char sha_a[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
static const char sha_b[] = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

// A shard whose tokens are first, first + 1, ...
static void write_shard(const char *path, int first, int n_tokens, const char *sha256)
{
    ShardInfo info = {.vocab_size = V, .eos_id = 0, .source = "test"};
    snprintf(info.tokenizer_sha256, sizeof info.tokenizer_sha256, "%s", sha256);
    int32_t *ids = malloc((size_t)n_tokens * sizeof *ids);
    assert_non_null(ids);
    for (int i = 0; i < n_tokens; i++)
        ids[i] = first + i;
    ShardWriter *writer;
    assert_ok(shard_create(&writer, path, &info));
    assert_ok(shard_append(writer, ids, n_tokens));
    assert_ok(shard_finish(writer));
    free(ids);
}

static char dir[PATH_BYTES];

static char *in_dir(const char *name)
{
    static char paths[8][PATH_BYTES];
    static int next = 0;
    char *path = paths[next++ % 8];
    assert_ok(file_join(path, dir, name));
    return path;
}

static int make_shards(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s", testing_dir());
    write_shard(in_dir("a-0.h5"), 0, 31, sha_a);     // 3 samples, the last token a target only
    write_shard(in_dir("a-1.h5"), 1000, 30, sha_a);  // 2 samples
    write_shard(in_dir("b.h5"), 20000, 5001, sha_a); // 500 samples
    write_shard(in_dir("c.h5"), 30000, 1001, sha_a); // 100 samples
    write_shard(in_dir("other.h5"), 0, 100, sha_b);
    write_shard(in_dir("short.h5"), 0, T, sha_a);
    return 0;
}

static void test_source_reads_samples_in_order(void **state)
{
    (void)state;
    char *patterns[] = {in_dir("a-*.h5")};
    Source *source;
    assert_ok(source_open(&source, "a", patterns, 1, T, sha_a, V));
    assert_int_equal(source_n_samples(source), 5);
    const int starts[] = {0, 10, 20, 1000, 1010};
    for (int i = 4; i >= 0; i--) {
        int32_t tokens[T + 1];
        assert_ok(source_read(source, i, tokens));
        for (int t = 0; t <= T; t++)
            assert_int_equal(tokens[t], starts[i] + t);
    }
    source_close(source);
}

static void test_unfit_shards_are_refused(void **state)
{
    (void)state;
    Source *source;
    char *other[] = {in_dir("other.h5")}, *none[] = {in_dir("x-*.h5")};
    char *both[] = {in_dir("a-0.h5"), other[0]}, *too_short[] = {in_dir("short.h5")};
    assert_fails(BAD_INPUT,
                 "made with tokenizer bbbbbbbbbbbb, the model (or the first shard) has "
                 "aaaaaaaaaaaa",
                 source_open(&source, "o", other, 1, T, sha_a, V));
    assert_fails(BAD_INPUT, "made with tokenizer", source_open(&source, "o", both, 2, T, NULL, V));
    assert_fails(BAD_INPUT, "x-*.h5: no such file", source_open(&source, "o", none, 1, T, NULL, V));
    assert_fails(BAD_INPUT, "holds 11 tokens", source_open(&source, "o", too_short, 1, T, NULL, V));
    int32_t tokens[T + 1];
    assert_ok(source_open(&source, "o", other, 1, T, sha_b, 50));
    assert_ok(source_read(source, 3, tokens));
    assert_fails(BAD_INPUT, "token 50 is 50, the model's vocabulary has 50",
                 source_read(source, 4, tokens));
    source_close(source);
}

static void test_sample_is_a_pure_function_of_its_index(void **state)
{
    (void)state;
    char *c = in_dir("c.h5"), *b = in_dir("b.h5");
    SourceSpec specs[] = {{(char[]){"c"}, &c, 1, 0.3}, {(char[]){"b"}, &b, 1, 0.7}};
    Mixture *ascending, *jumping;
    int32_t expected[400][T + 1], tokens[T + 1];
    assert_ok(mixture_open(&ascending, specs, 2, T, 7, NULL, V));
    for (int n = 0; n < 400; n++)
        assert_ok(mixture_read(ascending, n, expected[n]));
    assert_ok(mixture_open(&jumping, specs, 2, T, 7, NULL, V));
    for (int n = 0; n < 400; n++) {
        int index = n * 157 % 400; // a permutation: 157 and 400 have no common divisor
        assert_ok(mixture_read(jumping, index, tokens));
        assert_memory_equal(tokens, expected[index], sizeof tokens);
    }
    mixture_close(ascending);
    mixture_close(jumping);
}

// Sources c and b, with weights 0.3 and `weight`; all that are open share their specs.
static Mixture *open_pair(const char *c, const char *b, double weight, uint64_t seed, int seq_len)
{
    static char paths[2][PATH_BYTES];
    static char *shards[2] = {paths[0], paths[1]};
    static char names[2][2] = {"c", "b"};
    static SourceSpec specs[2];
    snprintf(paths[0], PATH_BYTES, "%s", c);
    snprintf(paths[1], PATH_BYTES, "%s", b);
    specs[0] = (SourceSpec){names[0], &shards[0], 1, 0.3};
    specs[1] = (SourceSpec){names[1], &shards[1], 1, weight};
    Mixture *mixture;
    assert_ok(mixture_open(&mixture, specs, 2, seq_len, seed, NULL, V));
    return mixture;
}

// A run that is started again at sample `first` goes on as if it had not stopped.
static void test_a_new_mixture_goes_on_anywhere(void **state)
{
    (void)state;
    static const int firsts[] = {1, 2, 99, 100, 101, 333, 997};
    Mixture *whole = open_pair(in_dir("c.h5"), in_dir("b.h5"), 0.7, 7, T);
    for (size_t i = 0; i < sizeof firsts / sizeof firsts[0]; i++) {
        Mixture *resumed = open_pair(in_dir("c.h5"), in_dir("b.h5"), 0.7, 7, T);
        for (int n = firsts[i]; n < firsts[i] + 20; n++) {
            int32_t expected[T + 1], tokens[T + 1];
            assert_ok(mixture_read(whole, n, expected));
            assert_ok(mixture_read(resumed, n, tokens));
            assert_memory_equal(tokens, expected, sizeof tokens);
        }
        mixture_close(resumed);
    }
    mixture_close(whole);
}

// c has 100 samples, b 500; 1,200 samples of the run take 360 of c, so it ends in its epoch 3.
static void test_a_small_source_goes_on_in_another_order(void **state)
{
    (void)state;
    Mixture *mixture = open_pair(in_dir("c.h5"), in_dir("b.h5"), 0.7, 7, T);
    int times[100] = {0}, before[100], n_c = 0, same = 0;
    for (int n = 0; n < 1200; n++) {
        int32_t tokens[T + 1];
        assert_ok(mixture_read(mixture, n, tokens));
        if (tokens[0] < 30000)
            continue; // of b
        const int sample = (tokens[0] - 30000) / T, epoch = n_c / 100;
        assert_int_equal(times[sample]++, epoch);
        same += epoch > 0 && before[n_c % 100] == sample;
        before[n_c++ % 100] = sample;
    }
    assert_int_equal(n_c, 360);
    assert_true(same < 12); // 2.6 expected; seen 2
    assert_int_equal(mixture_n_sources(mixture), 2);
    const SourceEpochs c = mixture_epochs(mixture, 0, 1200), b = mixture_epochs(mixture, 1, 1200);
    assert_string_equal(c.name, "c");
    assert_true(c.n_held == 100 && c.n_read == 360 && c.epochs == 3.6);
    assert_true(b.n_held == 500 && b.n_read == 840 && b.epochs == 840 / 500.0);
    mixture_close(mixture);
}

static void test_epochs_follow_the_weights(void **state)
{
    (void)state;
    static const int64_t counts[] = {0, 10, 1000, 1000000};
    Mixture *mixture = open_pair(in_dir("c.h5"), in_dir("b.h5"), 0.1, 7, T);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        const int64_t c = mixture_epochs(mixture, 0, counts[i]).n_read;
        const int64_t b = mixture_epochs(mixture, 1, counts[i]).n_read;
        assert_int_equal(c + b, counts[i]);
        // Two sources: at most half a sample off.
        assert_true(fabs((double)c - 0.75 * (double)counts[i]) <= 0.5 + 1e-6);
    }
    mixture_close(mixture);
}

static void test_epochs_are_different_permutations(void **state)
{
    (void)state;
    char *path = in_dir("c.h5");
    SourceSpec spec = {(char[]){"c"}, &path, 1, 1};
    Mixture *mixture;
    assert_ok(mixture_open(&mixture, &spec, 1, T, 7, NULL, V));
    assert_int_equal(mixture_epochs(mixture, 0, 0).n_held, 100);
    int first_epoch[100], same = 0, in_place = 0;
    bool seen[2][100] = {{false}};
    for (int n = 0; n < 200; n++) {
        int32_t tokens[T + 1];
        assert_ok(mixture_read(mixture, n, tokens));
        int sample = (tokens[0] - 30000) / T, epoch = n / 100;
        assert_false(seen[epoch][sample]);
        seen[epoch][sample] = true;
        if (epoch == 0)
            first_epoch[n] = sample;
        else
            same += first_epoch[n - 100] == sample;
        in_place += epoch == 0 && sample == n;
    }
    assert_true(same < 10 && in_place < 10); // 1 expected of each; seen 1 and 1
    char text[64];
    mixture_describe(mixture, 150, text, sizeof text);
    assert_non_null(strstr(text, "c epoch 1 sample "));
    mixture_close(mixture);
}

static void test_fingerprint_outlives_a_file_and_a_move(void **state)
{
    (void)state;
    Mixture *mixture = open_pair(in_dir("c.h5"), in_dir("b.h5"), 1.0 / 3, 7, T);
    json_t *now = mixture_fingerprint(mixture), *saved;
    assert_ok(json_write(now, in_dir("fingerprint.json")));
    assert_ok(json_read(&saved, in_dir("fingerprint.json")));
    mixture_close(mixture);
    assert_ok(file_make_dirs(in_dir("moved")));
    assert_ok(file_copy(in_dir("c.h5"), in_dir("moved/c.h5")));
    mixture = open_pair(in_dir("moved/c.h5"), in_dir("b.h5"), 1.0 / 3, 7, T);
    assert_ok(mixture_check_fingerprint(mixture, saved, "run"));
    mixture_close(mixture);
    json_decref(saved);
    json_decref(now);
}

static void check_differs(const char *text, Mixture *mixture, const json_t *saved)
{
    assert_fails(BAD_INPUT, text, mixture_check_fingerprint(mixture, saved, "run"));
    mixture_close(mixture);
}

static void test_fingerprint_names_what_differs(void **state)
{
    (void)state;
    const char *c = in_dir("c.h5"), *b = in_dir("b.h5"), *other = in_dir("other-c/c.h5");
    Mixture *mixture = open_pair(c, b, 0.7, 7, T);
    json_t *saved = mixture_fingerprint(mixture);
    mixture_close(mixture);
    check_differs("run: made with run.seed 7, now 8;", open_pair(c, b, 0.7, 8, T), saved);
    check_differs("data.seq_len 10, now 9;", open_pair(c, b, 0.7, 7, T - 1), saved);
    check_differs("data.sources[1].weight 0.7, now 0.2;", open_pair(c, b, 0.2, 7, T), saved);
    check_differs("data.sources[0].shards[0].file \"c.h5\", now \"b.h5\";",
                  open_pair(b, b, 0.7, 7, T), saved);
    check_differs("data.sources[0].shards 1 entries, now 2 entries;",
                  open_pair(in_dir("a-*.h5"), b, 0.7, 7, T), saved);
    // The same name and number of tokens, other tokens.
    assert_ok(file_make_dirs(in_dir("other-c")));
    write_shard(other, 30001, 1001, sha_a);
    check_differs("data.sources[0].shards[0].content ", open_pair(other, b, 0.7, 7, T), saved);
    write_shard(other, 30000, 1002, sha_a);
    check_differs("shards[0].tokens 1001, now 1002;", open_pair(other, b, 0.7, 7, T), saved);
    json_decref(saved);
}

// Replaces one token of a shard in the file itself, as an editor of HDF5 files does.
static void overwrite_token(const char *path, hsize_t at, int32_t id)
{
    const hsize_t one = 1;
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t tokens = H5Dopen2(file, "tokens", H5P_DEFAULT);
    const hid_t place = H5Dget_space(tokens), memory = H5Screate_simple(1, &one, NULL);
    assert_true(H5Sselect_hyperslab(place, H5S_SELECT_SET, &at, NULL, &one, NULL) >= 0);
    assert_true(H5Dwrite(tokens, H5T_NATIVE_INT32, memory, place, H5P_DEFAULT, &id) >= 0);
    H5Sclose(memory);
    H5Sclose(place);
    H5Dclose(tokens);
    assert_true(H5Fclose(file) >= 0);
}

static void delete_checksum(const char *path)
{
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(H5Adelete(file, "tokens_crc32") >= 0);
    assert_true(H5Fclose(file) >= 0);
}

// Token 100 of 1001 lies between those that are sampled, 0 to 63 and 133 to 196.
static void test_fingerprint_is_of_every_token(void **state)
{
    (void)state;
    char *b = in_dir("b.h5"), *path = in_dir("every/c.h5");
    SourceSpec spec = {(char[]){"x"}, &path, 1, 1};
    Mixture *mixture = open_pair(in_dir("c.h5"), b, 0.7, 7, T);
    json_t *saved = mixture_fingerprint(mixture);
    mixture_close(mixture);
    assert_ok(file_make_dirs(in_dir("every")));
    assert_ok(file_copy(in_dir("c.h5"), path));
    overwrite_token(path, 100, 5);
    assert_fails(BAD_INPUT, "c.h5: its tokens were changed after it was made",
                 mixture_open(&mixture, &spec, 1, T, 7, NULL, V));
    delete_checksum(path); // as in a shard of an older version
    check_differs("data.sources[0].shards[0].tokens_crc32 ", open_pair(path, b, 0.7, 7, T), saved);
    overwrite_token(path, 100, 30100);
    mixture = open_pair(path, b, 0.7, 7, T);
    assert_ok(mixture_check_fingerprint(mixture, saved, "run"));
    // A run of an older version knows the samples alone.
    json_t *source = json_array_get(json_object_get(saved, "sources"), 0);
    json_t *shard = json_array_get(json_object_get(source, "shards"), 0);
    assert_int_equal(json_object_del(shard, "tokens_crc32"), 0);
    assert_ok(mixture_check_fingerprint(mixture, saved, "run"));
    mixture_close(mixture);
    json_decref(saved);
}

static void test_fingerprint_may_be_damaged(void **state)
{
    (void)state;
    static const struct {
        const char *saved, *text;
    } cases[] = {
        {"null", "run: made with data null, now an object;"},
        {"{}", "data.version nothing, now 1;"},
        {"{\"version\": [2]}", "data.version 1 entries, now 1;"},
        {"{\"version\": 1, \"seed\": \"7\"}", "run.seed \"7\", now 7;"},
        {"{\"version\": 1, \"seed\": 7, \"seq_len\": 10, \"tokenizer_sha256\": \"a\"}",
         "data.tokenizer_sha256 \"a\", now \"aaa"},
    };
    Mixture *mixture = open_pair(in_dir("c.h5"), in_dir("b.h5"), 0.7, 7, T);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *saved = json_loads(cases[i].saved, JSON_DECODE_ANY, NULL);
        assert_non_null(saved);
        assert_fails(BAD_INPUT, cases[i].text, mixture_check_fingerprint(mixture, saved, "run"));
        json_decref(saved);
    }
    assert_fails(BAD_INPUT, "run: made with data nothing, now an object;",
                 mixture_check_fingerprint(mixture, NULL, "run"));
    mixture_close(mixture);
}

static void test_bad_weights_are_refused(void **state)
{
    (void)state;
    char *path = in_dir("c.h5");
    SourceSpec specs[] = {{(char[]){"x"}, &path, 1, 1}, {(char[]){"y"}, &path, 1, 0}};
    Mixture *mixture;
    assert_fails(BAD_INPUT, "source 1 has weight 0",
                 mixture_open(&mixture, specs, 2, T, 7, NULL, V));
    specs[1].weight = NAN;
    assert_fails(BAD_INPUT, "weight", mixture_open(&mixture, specs, 2, T, 7, NULL, V));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_source_reads_samples_in_order),
        cmocka_unit_test(test_unfit_shards_are_refused),
        cmocka_unit_test(test_sample_is_a_pure_function_of_its_index),
        cmocka_unit_test(test_a_new_mixture_goes_on_anywhere),
        cmocka_unit_test(test_a_small_source_goes_on_in_another_order),
        cmocka_unit_test(test_epochs_follow_the_weights),
        cmocka_unit_test(test_epochs_are_different_permutations),
        cmocka_unit_test(test_fingerprint_outlives_a_file_and_a_move),
        cmocka_unit_test(test_fingerprint_names_what_differs),
        cmocka_unit_test(test_fingerprint_is_of_every_token),
        cmocka_unit_test(test_fingerprint_may_be_damaged),
        cmocka_unit_test(test_bad_weights_are_refused),
    };
    return cmocka_run_group_tests(tests, make_shards, NULL);
}
