// Files of torch.save(): what PyTorch wrote is read, and nothing that is wrong in archive or pickle
// makes the reader look outside of the file or take another thing for a tensor.
#include "tests/support/testing.h"
#include "tests/support/testing_zip.h"

#include "base/file.h"
#include "model/paper/torch_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RANKS  GOLDEN_DIR "/paper/v12_2norm_joint/qk_rank.pth"
#define SCORES GOLDEN_DIR "/paper/v10_2norm_split/qk_rank.pth"

static unsigned char archive[TESTING_ZIP_BYTES];

// An archive of these parts as a file.
static const char *write_parts(const ZipPart *parts, int n_parts)
{
    const char *path = testing_path(testing_dir(), "t.pth");
    const size_t size = testing_zip(archive, parts, n_parts);
    assert_true(size > 0);
    assert_ok(file_write(path, archive, (int64_t)size));
    return path;
}

static const char *write_tensor(const PickleOf *of, const void *numbers, size_t numbers_bytes)
{
    unsigned char pickle[512];
    const size_t size = testing_pickle(pickle, of);
    return write_parts((const ZipPart[]){{"a/data.pkl", pickle, size},
                                         {"a/byteorder", "little", 6},
                                         {"a/data/0", numbers, numbers_bytes}},
                       3);
}

static void assert_values(const char *path, const double *expected, int64_t count)
{
    TorchTensor tensor;
    assert_ok(torch_file_open(&tensor, path));
    assert_int_equal(tensor.count, count);
    for (int64_t i = 0; i < count; i++)
        if (torch_file_value(&tensor, i) != expected[i])
            fail_msg("number %d is %g", (int)i, torch_file_value(&tensor, i));
    torch_file_close(&tensor);
}

// ---- what is read ------------------------------------------------------------------------------

static void test_files_of_pytorch_are_read(void **state)
{
    (void)state;
    TorchTensor tensor;
    assert_ok(torch_file_open(&tensor, RANKS));
    assert_int_equal(tensor.type, TORCH_U8);
    assert_int_equal(tensor.count, 2 * 2 * 8);
    assert_false(torch_file_is_float(&tensor));
    for (int64_t row = 0; row < 2 * 2; row++) { // a permutation, twice
        int seen = 0;
        for (int p = 0; p < 8; p++)
            seen += 1 << 4 * (int)torch_file_value(&tensor, 8 * row + p);
        assert_int_equal(seen, 0x2222);
    }
    torch_file_close(&tensor);
    assert_ok(torch_file_open(&tensor, SCORES));
    assert_int_equal(tensor.type, TORCH_F32);
    assert_true(tensor.dims[0] == 2 && tensor.dims[1] == 4 && tensor.dims[2] == 5);
    for (int64_t i = 0; i < tensor.count; i++)
        assert_true(torch_file_value(&tensor, i) > 0 && torch_file_value(&tensor, i) < 10);
    torch_file_close(&tensor);
}

static void test_what_was_written_is_read_back(void **state)
{
    (void)state;
    const uint8_t values[6] = {1, 0, 255, 4, 5, 6};
    const double expected[6] = {1, 0, 255, 4, 5, 6};
    const char *path = testing_path(testing_dir(), "w.pth");
    assert_ok(torch_file_write_u8(path, values, (int32_t[]){1, 2, 3}));
    assert_values(path, expected, 6);
}

static void test_every_dtype_is_read(void **state)
{
    (void)state;
    const int64_t longs[2] = {-3, 1LL << 40};
    const float floats[2] = {-1.5f, INFINITY};
    const double doubles[2] = {0.1, -2}, two_longs[2] = {-3, 0x1p40},
                 two_floats[2] = {-1.5, INFINITY}, two_halves[2] = {1, -2};
    const uint16_t halves[2] = {0x3c00, 0xc000}, bfloats[2] = {0x3f80, 0xc000};
    const struct {
        const char *storage;
        const void *numbers;
        size_t size;
        const double *expected;
    } cases[] = {
        {"LongStorage", longs, sizeof longs, two_longs},
        {"FloatStorage", floats, sizeof floats, two_floats},
        {"DoubleStorage", doubles, sizeof doubles, doubles},
        {"HalfStorage", halves, sizeof halves, two_halves},
        {"BFloat16Storage", bfloats, sizeof bfloats, two_halves},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const PickleOf of = {cases[i].storage, {1, 1, 2}, {-1, -1, -1}, 0, -1};
        assert_values(write_tensor(&of, cases[i].numbers, cases[i].size), cases[i].expected, 2);
    }
    // A part of a storage: its numbers 1 and 2.
    const PickleOf part = {"ByteStorage", {1, 2, 1}, {-1, -1, -1}, 1, 4};
    assert_values(write_tensor(&part, "\4\5\6\7", 4), (const double[]){5, 6}, 2);
}

// What torch.save(pickle_protocol=4) writes.
static void test_protocol_4_is_read(void **state)
{
    (void)state;
    static const char pickle[] = "\x80\x04\x95\x80\0\0\0\0\0\0\0"
                                 "\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_tensor_v2\x94\x93\x94(("
                                 "\x8c\x07storage\x94\x8c\x05torch\x94\x8c\x0b"
                                 "ByteStorage\x94\x93\x94\x8c\x01"
                                 "0\x94\x8c\x03"
                                 "cpu\x94K\x02t\x94QK\0K\x01K\x01\x8a\x01\x02\x87\x94K\x02M\x02\0K"
                                 "\x01\x87\x94\x88\x8c\x0b"
                                 "collections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94t\x94R\x94.";
    const ZipPart parts[] = {{"x/data.pkl", pickle, sizeof pickle - 1}, {"x/data/0", "\7\1", 2}};
    assert_values(write_parts(parts, 2), (const double[]){7, 1}, 2);
}

// ---- wrong tensors -----------------------------------------------------------------------------

static void test_other_tensors_are_refused(void **state)
{
    (void)state;
    static const struct {
        PickleOf of;
        const char *text;
    } cases[] = {
        {{"ShortStorage", {1, 1, 2}, {-1, -1, -1}, 0, -1},
         "a tensor of torch ShortStorage, supported"},
        {{"x.system", {1, 1, 2}, {-1, -1, -1}, 0, -1}, "a tensor of torch x.system, supported"},
        {{"ByteStorage", {0, 1, 2}, {-1, -1, -1}, 0, -1}, "[0, 1, 2] is none of ranks or scores"},
        {{"ByteStorage", {-2, -1, 4}, {-1, -1, -1}, 0, -1}, "[-2, -1, 4] is none of ranks"},
        {{"ByteStorage", {INT32_MAX, INT32_MAX, INT32_MAX}, {1, 1, 1}, 0, 8}, "is none of ranks"},
        {{"ByteStorage", {1, 2, 4}, {8, 1, 2}, 0, 8},
         "not in their order; save tensor.contiguous()"},
        {{"ByteStorage", {2, 2, 2}, {0, 0, 1}, 0, 8}, "not in their order"},
        {{"ByteStorage", {1, 1, 8}, {-1, -1, -1}, 1, 8},
         "8 numbers in a storage of 8; it is damaged"},
        {{"ByteStorage", {1, 1, 8}, {-1, -1, -1}, -1, 8}, "8 numbers in a storage of 8"},
        {{"ByteStorage", {1, 1, 8}, {-1, -1, -1}, 0, 4}, "8 numbers in a storage of 4"},
        {{"ByteStorage", {1, 1, 9}, {-1, -1, -1}, 0, 9}, "has 8 bytes, too few for 9 numbers"},
        {{"LongStorage", {1, 1, 2}, {-1, -1, -1}, 0, 2}, "has 8 bytes, too few for 2 numbers"},
        {{"ByteStorage", {1, 1, 2}, {-1, -1, -1}, 0, INT32_MAX}, "too few for 2147483647 numbers"},
    };
    TorchTensor tensor;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_fails(BAD_INPUT, cases[i].text,
                     torch_file_open(&tensor, write_tensor(&cases[i].of, "\1\2\3\4\5\6\7\10", 8)));
}

static void test_other_pickles_are_refused_and_never_run(void **state)
{
    (void)state;
    static const struct {
        const char *pickle;
        size_t size;
        const char *text;
    } cases[] = {
#define PICKLE(bytes, text) {bytes, sizeof bytes - 1, text}
        PICKLE("\x80\x02}q\0(X\5\0\0\0ranksctorch\n", "holds a dict, expected is one tensor"),
        PICKLE("\x80\x02"
               "cos\nsystem\n(X\4\0\0\0truetR.",
               "holds something else, expected is one tensor"),
        PICKLE("cposix\nsystem\nX\4\0\0\0true\x85R.", "holds something else"),
        PICKLE("", "holds something else"),
        PICKLE("\x80", "holds something else"),
        PICKLE("ctorch._utils", "holds something else"),
        PICKLE("ctorch._utils\n_rebuild_tensor_v2\n((X\xff\xff\xff\xffstorage", "something else"),
        PICKLE("ctorch._utils\n_rebuild_tensor_v2\n((\x8c", "something else"),
        PICKLE("ctorch._utils\n_rebuild_parameter\n((", "something else"),
        PICKLE("\x8a\xff\1\2", "something else"),
#undef PICKLE
    };
    TorchTensor tensor;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const ZipPart parts[] = {{"a/data.pkl", cases[i].pickle, cases[i].size},
                                 {"a/data/0", "\1", 1}};
        assert_fails(BAD_INPUT, cases[i].text, torch_file_open(&tensor, write_parts(parts, 2)));
    }
}

// ---- wrong archives ----------------------------------------------------------------------------

static void test_other_archives_are_refused(void **state)
{
    (void)state;
    unsigned char pickle[512];
    const PickleOf of = {"ByteStorage", {1, 1, 1}, {-1, -1, -1}, 0, -1};
    const size_t size = testing_pickle(pickle, &of);
    const struct {
        ZipPart parts[3];
        int n_parts;
        const char *text;
    } cases[] = {
        {{{"a/data/0", "\1", 1}}, 1, "without data.pkl, so not of torch.save()"},
        {{{"data.pkl", pickle, size}}, 1, "without data.pkl"},
        {{{"\n/data.pkl", pickle, size}}, 1, "without data.pkl"},
        {{{"a/data.pkl", pickle, size}}, 1, "has 0 entries 'a/data/0', expected is one"},
        {{{"a/data.pkl", pickle, size}, {"a/data.pkl", pickle, size}}, 2, "has 2 entries"},
        {{{"a/data.pkl", pickle, size}, {"a/data/0", "\1", 1}, {"a/data/0", "\2", 1}},
         3,
         "has 2 entries 'a/data/0'"},
        {{{"a/data.pkl", pickle, size}, {"a/byteorder", "big", 3}, {"a/data/0", "\1", 1}},
         3,
         "written on a big-endian machine"},
    };
    TorchTensor tensor;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_fails(BAD_INPUT, cases[i].text,
                     torch_file_open(&tensor, write_parts(cases[i].parts, cases[i].n_parts)));
    const char *path = testing_path(testing_dir(), "t.pth");
    assert_ok(file_write(path, "\x80\x02}.", 4));
    assert_fails(BAD_INPUT, "is a Python pickle", torch_file_open(&tensor, path));
    assert_ok(file_write(path, "version https://git-lfs.github.com/spec/v1\n", 43));
    assert_fails(BAD_INPUT, "is a Git LFS pointer", torch_file_open(&tensor, path));
    assert_ok(file_write(path, "", 0));
    assert_fails(BAD_INPUT, "not a whole zip archive", torch_file_open(&tensor, path));
}

// Where headers say something else: offsets from the directory's first or second entry, or from the
// archive's end.
static void test_damaged_headers_are_refused(void **state)
{
    (void)state;
    enum { FIRST, SECOND, END };
    static const struct {
        int of, offset, size;
        uint32_t value;
        const char *text;
    } cases[] = {
        {FIRST, 10, 2, 8, "entry 'a/data.pkl' of the zip archive is compressed"},
        {FIRST, 20, 4, 3, "is compressed"},
        {FIRST, 8, 2, 1, "is encrypted or in another volume"},
        {SECOND, 34, 2, 1, "is encrypted or in another volume"},
        {SECOND, 42, 4, 0, "entry 'a/byteorder' of the zip archive overlaps the one before it"},
        {SECOND, 42, 4, 60, "overlaps the one before it"},
        {FIRST, 42, 4, 1, "is not where its directory says"},
        {FIRST, 42, 4, 0xfffffff0, "is not in the file, which is damaged"},
        {FIRST, 28, 2, 0xffff, "the zip archive's directory is damaged at entry 0"},
        {FIRST, 30, 2, 0xffff, "directory is damaged at entry 0"},
        {FIRST, 16, 4, 1, "entry 'a/data.pkl' of the zip archive is damaged: CRC-32"},
        {END, 10, 2, 0xffff, "of zip64 or of several volumes"},
        {END, 16, 4, 0xffffffff, "of zip64 or of several volumes"},
        {END, 4, 2, 1, "of several volumes"},
        {END, 8, 2, 1, "of several volumes"},
        {END, 16, 4, 0xfffffff0, "directory is not in the file; it is damaged"},
        {END, 12, 4, 0xfffffff0, "directory is not in the file"},
        {END, 12, 4, 60, "directory is damaged at entry 1"},
        {END, 16, 4, 0, "directory is damaged at entry 0"},
        {END, 20, 2, 7, "not a whole zip archive"},
    };
    const PickleOf of = {"ByteStorage", {1, 1, 8}, {-1, -1, -1}, 0, -1};
    TorchTensor tensor;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        FileMap map;
        const char *path = write_tensor(&of, "\1\2\3\4\5\6\7\10", 8);
        assert_ok(file_map(&map, path));
        const int64_t size = map.size_bytes, end = size - 22;
        file_unmap(&map);
        const int64_t first = archive[end + 16] | archive[end + 17] << 8;
        const int64_t places[] = {first, first + 46 + (int64_t)strlen("a/data.pkl"), end};
        for (int b = 0; b < cases[i].size; b++)
            archive[places[cases[i].of] + cases[i].offset + b] =
                (unsigned char)(cases[i].value >> 8 * b & 255);
        assert_ok(file_write(path, archive, size));
        assert_fails(BAD_INPUT, cases[i].text, torch_file_open(&tensor, path));
    }
}

// Sizes that reach from an entry into the directory, the same in both of its headers.
static void test_entries_end_before_the_directory(void **state)
{
    (void)state;
    const PickleOf of = {"ByteStorage", {1, 1, 8}, {-1, -1, -1}, 0, -1};
    TorchTensor tensor;
    FileMap map;
    const char *path = write_tensor(&of, "\1\2\3\4\5\6\7\10", 8);
    assert_ok(file_map(&map, path));
    const int64_t size = map.size_bytes, end = size - 22;
    file_unmap(&map);
    const int64_t first = archive[end + 16] | archive[end + 17] << 8;
    const int64_t last = end - 46 - (int64_t)strlen("a/data/0");
    assert_true(last > first);
    memset(archive + last + 20, 0xf0, 8);
    assert_ok(file_write(path, archive, size));
    assert_fails(BAD_INPUT, "'a/data/0' of the zip archive reaches beyond the others",
                 torch_file_open(&tensor, path));
}

// A file that is cut anywhere is refused; one with a changed byte is refused or is a tensor whose
// numbers are in the file.
static void test_cut_and_changed_files(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "c.pth");
    FileMap map;
    TorchTensor tensor;
    assert_ok(file_map(&map, RANKS));
    const int64_t size = map.size_bytes, step = TESTING_IS_SANITIZED ? 7 : 1;
    unsigned char *bytes = malloc((size_t)size);
    assert_non_null(bytes);
    memcpy(bytes, map.bytes, (size_t)size);
    file_unmap(&map);
    for (int64_t cut = 0; cut < size; cut += step) {
        assert_ok(file_write(path, bytes, cut));
        assert_int_equal(torch_file_open(&tensor, path), BAD_INPUT);
    }
    for (int64_t i = 0; i < size; i += step) {
        bytes[i] ^= 0x5f;
        assert_ok(file_write(path, bytes, size));
        if (torch_file_open(&tensor, path) == OK) {
            assert_int_equal(tensor.count, 32);
            assert_true(torch_file_value(&tensor, 0) <= 3 && torch_file_value(&tensor, 31) <= 3);
            torch_file_close(&tensor);
        }
        bytes[i] ^= 0x5f;
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_of_pytorch_are_read),
        cmocka_unit_test(test_what_was_written_is_read_back),
        cmocka_unit_test(test_every_dtype_is_read),
        cmocka_unit_test(test_protocol_4_is_read),
        cmocka_unit_test(test_other_tensors_are_refused),
        cmocka_unit_test(test_other_pickles_are_refused_and_never_run),
        cmocka_unit_test(test_other_archives_are_refused),
        cmocka_unit_test(test_damaged_headers_are_refused),
        cmocka_unit_test(test_entries_end_before_the_directory),
        cmocka_unit_test(test_cut_and_changed_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
