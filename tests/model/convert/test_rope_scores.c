// Calibration sums of pair norms by hand-computed cases, and their file.
#include "tests/support/testing.h"

#include "base/file.h"
#include "model/convert/rope_scores.h"

#include <hdf5.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Two layers, four query heads on two KV heads, four pairs a head.
static ModelShape small_shape(void)
{
    return (ModelShape){.n_layers = 2,
                        .d_model = 16,
                        .n_heads = 4,
                        .n_kv_heads = 2,
                        .head_dim = 8,
                        .d_ffn = 8,
                        .vocab_size = 10,
                        .max_positions = 16,
                        .rope_pairs = 4};
}

// Sums that are not zero, of 123456789 tokens.
static RopeScores some_scores(const ModelShape *shape)
{
    RopeScores scores;
    assert_ok(rope_scores_create(&scores, shape));
    for (int64_t i = 0; i < rope_scores_count(shape) - 1; i++)
        scores.block[i] = sqrt((double)i + 0.1);
    *scores.n_tokens = 123456789;
    return scores;
}

// Two tokens in rows of 52 floats, of which 48 are heads; pair 1 of query head 2 and pair 3 of
// key head 1 are set.
static void add_two_tokens(RopeScores *scores, int layer, DType dtype)
{
    float qkv[2 * 52] = {0};
    for (int i = 48; i < 104; i++)
        qkv[i] = i % 52 >= 48 ? 1000.0f : 0.0f; // what lies between the rows is not read
    qkv[2 * 8 + 1] = 3, qkv[2 * 8 + 1 + 4] = -4;
    qkv[52 + 2 * 8 + 1] = -1;
    qkv[52 + 5 * 8 + 3] = 5, qkv[52 + 5 * 8 + 3 + 4] = 12;
    uint16_t halves[2 * 52]; // exactly the same numbers
    dtype_narrow(halves, DTYPE_BF16, qkv, 2 * 52);
    rope_scores_add(scores, layer, dtype == DTYPE_BF16 ? rows_bf16(halves, 52) : rows_f32(qkv, 52),
                    2);
}

static void test_add_sums_pair_norms_and_counts_tokens_once(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    RopeScores scores;
    assert_ok(rope_scores_create(&scores, &shape));
    for (int batch = 0; batch < 2; batch++)
        for (int layer = 0; layer < 2; layer++)
            add_two_tokens(&scores, layer, batch == 0 ? DTYPE_F32 : DTYPE_BF16);
    assert_int_equal(rope_scores_count(&shape), 2 * 4 * 4 + 2 * 2 * 4 + 1);
    for (int i = 0; i < 48; i++) {
        int in_layer = i < 32 ? i % 16 : i % 8;
        double expected = i < 32 && in_layer == 2 * 4 + 1    ? 12 // 2 (5 + 1)
                          : i >= 32 && in_layer == 1 * 4 + 3 ? 26
                                                             : 0;
        assert_true(scores.block[i] == expected);
    }
    assert_true(*scores.n_tokens == 4);
    rope_scores_release(&scores);
}

static void test_add_has_the_same_bits_with_any_number_of_threads(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    float qkv[100 * 48];
    testing_fill(qkv, 100 * 48, 1.0, 7);
    RopeScores one, three;
    assert_ok(rope_scores_create(&one, &shape));
    assert_ok(rope_scores_create(&three, &shape));
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    rope_scores_add(&one, 0, rows_f32(qkv, 48), 100);
    omp_set_num_threads(3);
    rope_scores_add(&three, 0, rows_f32(qkv, 48), 100);
    omp_set_num_threads(before);
    assert_true(one.q_norm[0] > 0);
    assert_memory_equal(one.block, three.block, (size_t)rope_scores_count(&shape) * sizeof(double));
    rope_scores_release(&one);
    rope_scores_release(&three);
}

// Writes some scores to a new file.
static const char *written_file(const ModelShape *shape)
{
    const char *path = testing_path(testing_dir(), "scores.h5");
    RopeScores scores = some_scores(shape);
    assert_ok(rope_scores_write(&scores, path));
    rope_scores_release(&scores);
    return path;
}

static void test_file_gives_back_every_bit(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    const char *dir = testing_dir(), *path = testing_path(dir, "scores.h5");
    RopeScores scores = some_scores(&shape), read;
    assert_ok(rope_scores_write(&scores, path));
    testing_no_temporaries(path);
    assert_ok(rope_scores_read(&read, &shape, path));
    assert_memory_equal(read.block, scores.block, 49 * sizeof(double));
    assert_ptr_equal(read.n_tokens, read.block + 48);
    rope_scores_release(&scores);
    rope_scores_release(&read);
}

static void test_file_of_another_model_is_refused(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    const char *path = written_file(&shape);
    RopeScores scores;
    ModelShape other = shape;
    other.n_layers = 3;
    assert_fails(BAD_INPUT, "n_layers is 2, needed is 3", rope_scores_read(&scores, &other, path));
    other = shape, other.n_heads = 8;
    assert_fails(BAD_INPUT, "n_heads is 4, needed is 8", rope_scores_read(&scores, &other, path));
    other = shape, other.n_kv_heads = 1;
    assert_fails(BAD_INPUT, "n_kv_heads is 2, needed is 1",
                 rope_scores_read(&scores, &other, path));
    other = shape, other.head_dim = 64;
    assert_fails(BAD_INPUT, "head_dim is 8, needed is 64", rope_scores_read(&scores, &other, path));
}

static void test_unreadable_files_are_refused(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    RopeScores scores;
    assert_fails(BAD_INPUT, "No such file",
                 rope_scores_read(&scores, &shape, testing_absent("s.h5")));
    const char *path = testing_path(testing_dir(), "text.h5");
    assert_ok(file_write(path, "not HDF5", 8));
    assert_fails(BAD_INPUT, "file signature not found", rope_scores_read(&scores, &shape, path));
    hid_t empty = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(empty);
    assert_fails(BAD_INPUT, "not a file of RoPE scores", rope_scores_read(&scores, &shape, path));
}

// Replaces an attribute or a dataset of a good file by an array of n numbers of `type`.
static void replace(const char *path, const char *name, bool is_attribute, hid_t type, hsize_t n)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t space = H5Screate_simple(1, &n, NULL);
    if (is_attribute) {
        assert_true(H5Adelete(file, name) >= 0);
        H5Aclose(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
    } else {
        assert_true(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
        H5Dclose(H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    }
    H5Sclose(space);
    H5Fclose(file);
}

static void test_parts_of_another_kind_are_refused(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    RopeScores scores;
    const char *path = written_file(&shape);
    replace(path, "n_tokens", true, H5T_NATIVE_INT64, 1000);
    assert_fails(BAD_INPUT, "attribute n_tokens is not one whole number",
                 rope_scores_read(&scores, &shape, path));
    path = written_file(&shape);
    replace(path, "n_heads", true, H5T_NATIVE_DOUBLE, 1);
    assert_fails(BAD_INPUT, "attribute n_heads is not one whole number",
                 rope_scores_read(&scores, &shape, path));
    path = written_file(&shape);
    replace(path, "k_norm", false, H5T_NATIVE_DOUBLE, 16);
    assert_fails(BAD_INPUT, "dataset k_norm is not 2 x 2 x 4",
                 rope_scores_read(&scores, &shape, path));
}

static void set_attribute(const char *path, const char *name, int64_t value)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0);
    H5Aclose(attribute);
    H5Fclose(file);
}

// Where the file alone says of what model it is: dims in bounds whose numbers it cannot hold.
static void test_dims_that_the_file_cannot_hold_are_refused(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    RopeScores scores;
    const char *path = written_file(&shape);
    set_attribute(path, "n_layers", 1000);
    set_attribute(path, "n_heads", 4096);
    set_attribute(path, "n_kv_heads", 4096);
    set_attribute(path, "head_dim", 4096);
    assert_fails(BAD_INPUT, "is damaged: its", rope_scores_read(&scores, NULL, path));
    set_attribute(path, "n_heads", 4097);
    assert_fails(BAD_INPUT, "n_heads is 4097, allowed are 1 to 4096",
                 rope_scores_read(&scores, NULL, path));
}

// Without the fsync of file_write(): thousands of them.
static void write_quickly(const char *path, const void *bytes, int64_t size_bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fwrite(bytes, 1, (size_t)size_bytes, file);
    assert_int_equal(fclose(file), 0);
}

// Cut anywhere, a file is refused; a flipped byte is noticed or outside of what is read.
static void test_damaged_files_never_give_other_numbers(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    const char *path = written_file(&shape);
    FileMap good;
    assert_ok(file_map(&good, path));
    const char *damaged = testing_path(testing_dir(), "damaged.h5");
    RopeScores expected, got;
    assert_ok(rope_scores_read(&expected, &shape, path));
    int n_refused = 0;
    for (int64_t size = 0; size < good.size_bytes; size += 197) {
        write_quickly(damaged, good.bytes, size);
        assert_int_equal(rope_scores_read(&got, &shape, damaged), BAD_INPUT);
    }
    unsigned char *copy = malloc((size_t)good.size_bytes);
    assert_non_null(copy);
    for (int64_t at = 0; at < good.size_bytes; at += 7) {
        memcpy(copy, good.bytes, (size_t)good.size_bytes);
        copy[at] ^= 0x40;
        write_quickly(damaged, copy, good.size_bytes);
        if (rope_scores_read(&got, &shape, damaged) != OK) {
            n_refused++;
            continue;
        }
        assert_memory_equal(got.block, expected.block, 49 * sizeof(double));
        rope_scores_release(&got);
    }
    assert_true(n_refused > 150); // seen 209 of 349; the rest is space that is not read
    assert_int_equal(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL), 0); // all closed
    free(copy);
    rope_scores_release(&expected);
    file_unmap(&good);
}

static void test_failed_write_leaves_the_old_file(void **state)
{
    (void)state;
    ModelShape shape = small_shape();
    RopeScores scores = some_scores(&shape), read;
    assert_fails(FAILED, "/absent/s.h5: cannot be written",
                 rope_scores_write(&scores, testing_absent("s.h5")));
    const char *path = written_file(&shape);
    testing_limit_files(64);
    assert_fails(FAILED, "scores.h5: write failed", rope_scores_write(&scores, path));
    testing_limit_files(-1);
    testing_no_temporaries(path);
    assert_ok(rope_scores_read(&read, &shape, path));
    assert_true(*read.n_tokens == 123456789);
    rope_scores_release(&read);
    rope_scores_release(&scores);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add_sums_pair_norms_and_counts_tokens_once),
        cmocka_unit_test(test_add_has_the_same_bits_with_any_number_of_threads),
        cmocka_unit_test(test_file_gives_back_every_bit),
        cmocka_unit_test(test_file_of_another_model_is_refused),
        cmocka_unit_test(test_unreadable_files_are_refused),
        cmocka_unit_test(test_parts_of_another_kind_are_refused),
        cmocka_unit_test(test_dims_that_the_file_cannot_hold_are_refused),
        cmocka_unit_test(test_damaged_files_never_give_other_numbers),
        cmocka_unit_test(test_failed_write_leaves_the_old_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
