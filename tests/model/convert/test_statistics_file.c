// The statistics in a scores file: written layer by layer, read back, and refused where they are
// not what a conversion needs.
#include "tests/support/testing.h"

#include "model/convert/statistics_file.h"

#include <hdf5.h>
#include <math.h>
#include <string.h>

enum { POOLS = 2, WINDOWS = 3, T = 5 };

static ModelShape small_shape(void)
{
    return (ModelShape){.n_layers = 2,
                        .d_model = 7,
                        .n_heads = 4,
                        .n_kv_heads = 2,
                        .head_dim = 8,
                        .d_ffn = 8,
                        .vocab_size = 10,
                        .max_positions = 16,
                        .rope_pairs = 4};
}

static int64_t n_doubles(const LayerStatistics *statistics)
{
    return statistics->arena.size_bytes / (int64_t)sizeof(double);
}

// Every matrix symmetric, every number another one.
static void fill_squares(double *squares, int count, int side, double from)
{
    for (int c = 0; c < count; c++)
        for (int i = 0; i < side; i++)
            for (int j = i; j < side; j++)
                squares[((int64_t)c * side + i) * side + j] =
                    squares[((int64_t)c * side + j) * side + i] = from += 0.37;
}

static void fill(LayerStatistics *of, const ModelShape *s, int layer)
{
    fill_squares(of->covariance, 1, s->d_model, layer + 1);
    fill_squares(of->value, POOLS, s->d_model, layer + 20);
    fill_squares(of->key, POOLS, s->d_model, layer + 300);
    fill_squares(of->tau, s->n_heads, 1, layer + 4000);
    fill_squares(of->query, s->n_heads, s->head_dim, layer + 50000);
    fill_squares(of->gram, s->n_heads, statistics_features(s), layer + 600000);
}

// A file of both layers; `bad` is put into the last layer's keys.
static void write_file(const char *path, double bad)
{
    const ModelShape shape = small_shape();
    const StatisticsInfo info = {POOLS, WINDOWS, 2, T};
    int32_t tokens[WINDOWS * T];
    RopeScores scores;
    LayerStatistics statistics;
    StatisticsWriter writer;
    for (int i = 0; i < WINDOWS * T; i++)
        tokens[i] = i % shape.vocab_size;
    assert_ok(rope_scores_create(&scores, &shape));
    *scores.n_tokens = 15;
    assert_ok(layer_statistics_create(&statistics, &shape, POOLS));
    assert_ok(statistics_writer_open(&writer, &scores, &info, tokens, path));
    for (int l = 0; l < shape.n_layers; l++) {
        fill(&statistics, &shape, l);
        if (l == shape.n_layers - 1 && bad != 0)
            statistics.key[3] = bad;
        assert_ok(statistics_writer_add(&writer, l, &statistics));
    }
    assert_ok(statistics_writer_publish(&writer));
    layer_statistics_release(&statistics);
    rope_scores_release(&scores);
}

static void test_what_was_written_is_read(void **state)
{
    (void)state;
    const ModelShape shape = small_shape();
    const char *path = testing_path(testing_dir(), "scores.h5");
    LayerStatistics expected, got;
    StatisticsFile file;
    int32_t tokens[WINDOWS * T];
    write_file(path, 0);
    testing_no_temporaries(path);
    assert_ok(statistics_file_open(&file, &shape, path));
    assert_int_equal(file.info.n_pools, POOLS);
    assert_int_equal(file.info.n_windows, WINDOWS);
    assert_int_equal(file.info.n_attention, 2);
    assert_int_equal(file.info.seq_len, T);
    assert_ok(statistics_file_tokens(&file, tokens));
    for (int i = 0; i < WINDOWS * T; i++)
        assert_int_equal(tokens[i], i % shape.vocab_size);
    assert_ok(layer_statistics_create(&expected, &shape, POOLS));
    assert_ok(layer_statistics_create(&got, &shape, POOLS));
    for (int l = shape.n_layers - 1; l >= 0; l--) {
        fill(&expected, &shape, l);
        assert_ok(statistics_file_read(&file, l, &got));
        assert_memory_equal(got.arena.block, expected.arena.block,
                            (size_t)n_doubles(&expected) * sizeof(double));
    }
    layer_statistics_release(&expected);
    layer_statistics_release(&got);
    statistics_file_close(&file);
}

static void test_norms_are_read_from_it_too(void **state)
{
    (void)state;
    const ModelShape shape = small_shape();
    const char *path = testing_path(testing_dir(), "scores.h5");
    RopeScores scores;
    write_file(path, 0);
    assert_ok(rope_scores_read(&scores, &shape, path));
    assert_true(*scores.n_tokens == 15);
    rope_scores_release(&scores);
    assert_ok(rope_scores_read(&scores, NULL, path));
    assert_int_equal(scores.shape.n_heads, shape.n_heads);
    rope_scores_release(&scores);
}

static void test_a_file_without_statistics_is_refused(void **state)
{
    (void)state;
    const ModelShape shape = small_shape();
    const char *path = testing_path(testing_dir(), "scores.h5");
    RopeScores scores;
    StatisticsFile file;
    assert_ok(rope_scores_create(&scores, &shape));
    *scores.n_tokens = 15;
    assert_ok(rope_scores_write(&scores, path));
    assert_fails(BAD_INPUT, "has norms of RoPE pairs alone, no statistics of activations",
                 statistics_file_open(&file, &shape, path));
    rope_scores_release(&scores);
}

static void test_another_model_is_refused(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "scores.h5");
    ModelShape other = small_shape();
    StatisticsFile file;
    write_file(path, 0);
    other.d_model = 9;
    assert_fails(BAD_INPUT, "d_model is 7, needed is 9", statistics_file_open(&file, &other, path));
    other = small_shape();
    other.n_layers = 3;
    assert_fails(BAD_INPUT, "n_layers is 2, needed is 3",
                 statistics_file_open(&file, &other, path));
}

static void test_numbers_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    const ModelShape shape = small_shape();
    const char *path = testing_path(testing_dir(), "scores.h5");
    LayerStatistics statistics;
    StatisticsFile file;
    write_file(path, 1e300); // whose products are not
    assert_ok(statistics_file_open(&file, &shape, path));
    assert_ok(layer_statistics_create(&statistics, &shape, POOLS));
    assert_fails(BAD_INPUT, "layer 1: statistic key has 1e+300 at row 0, column 3",
                 statistics_file_read(&file, 1, &statistics));
    layer_statistics_release(&statistics);
    statistics_file_close(&file);
    write_file(path, INFINITY);
    assert_ok(statistics_file_open(&file, &shape, path));
    assert_ok(layer_statistics_create(&statistics, &shape, POOLS));
    assert_ok(statistics_file_read(&file, 0, &statistics));
    assert_fails(BAD_INPUT, "layer 1: statistic key has inf at row 0, column 3",
                 statistics_file_read(&file, 1, &statistics));
    layer_statistics_release(&statistics);
    statistics_file_close(&file);
}

// Another value of an attribute of the group.
static void set_attribute(const char *path, const char *group_name, const char *name, int64_t value)
{
    hid_t id = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(id >= 0);
    hid_t group = H5Gopen2(id, group_name, H5P_DEFAULT);
    hid_t attribute = H5Aopen(group, name, H5P_DEFAULT);
    assert_true(group >= 0 && attribute >= 0);
    assert_true(H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0);
    H5Aclose(attribute);
    H5Gclose(group);
    assert_true(H5Fclose(id) >= 0);
}

static void test_attributes_out_of_range_are_refused(void **state)
{
    (void)state;
    const ModelShape shape = small_shape();
    const char *path = testing_path(testing_dir(), "scores.h5");
    StatisticsFile file;
    write_file(path, 0);
    set_attribute(path, "statistics", "n_pools", 3);
    assert_fails(BAD_INPUT, "n_pools is 3, allowed are 1, 2 and 4",
                 statistics_file_open(&file, &shape, path));
}

static void test_another_version_is_refused(void **state)
{
    (void)state;
    const ModelShape shape = small_shape();
    const char *path = testing_path(testing_dir(), "scores.h5");
    StatisticsFile file;
    write_file(path, 0);
    set_attribute(path, "/", "version", 3);
    assert_fails(BAD_INPUT, "version is 3, needed is 1 to 2; make the scores again",
                 statistics_file_open(&file, &shape, path));
}

// Dims do not tell all models apart.
static void test_tokens_of_another_vocabulary_are_refused(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "scores.h5");
    ModelShape shape = small_shape();
    int32_t tokens[WINDOWS * T];
    StatisticsFile file;
    write_file(path, 0);
    shape.vocab_size = 2;
    assert_ok(statistics_file_open(&file, &shape, path));
    assert_fails(BAD_INPUT, "token 2 of its windows is not in the model's vocabulary of 2",
                 statistics_file_tokens(&file, tokens));
    statistics_file_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_written_is_read),
        cmocka_unit_test(test_norms_are_read_from_it_too),
        cmocka_unit_test(test_a_file_without_statistics_is_refused),
        cmocka_unit_test(test_another_model_is_refused),
        cmocka_unit_test(test_numbers_that_are_not_finite_are_refused),
        cmocka_unit_test(test_attributes_out_of_range_are_refused),
        cmocka_unit_test(test_another_version_is_refused),
        cmocka_unit_test(test_tokens_of_another_vocabulary_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
