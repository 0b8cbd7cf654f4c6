// Safetensors files: every half float both ways, hostile headers, damaged files, large offsets.
#include "tests/support/testing.h"

#include "base/random.h"
#include "model/hf/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Not atomic: thousands of fsyncs would take minutes.
static void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
}

static const char *shared_dir(void)
{
    static const char *dir = NULL;
    if (dir == NULL)
        dir = testing_dir();
    return dir;
}

// A file of this header, `length` as its length and zeros or `data` behind it.
static const char *write_raw(uint64_t length, const char *header, const void *data, size_t size)
{
    const char *path = testing_path(shared_dir(), "x.safetensors");
    size_t header_size = strlen(header);
    char *bytes = calloc(1, 8 + header_size + size + 1);
    assert_non_null(bytes);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, header_size);
    if (data != NULL)
        memcpy(bytes + 8 + header_size, data, size);
    write_bytes(path, bytes, 8 + header_size + size);
    free(bytes);
    return path;
}

static const char *write_file(const char *header, const void *data, size_t size)
{
    return write_raw(strlen(header), header, data, size);
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// The value of an F16 with these bits, by definition.
static double value_of_f16(int bits)
{
    int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
    double magnitude = exponent == 31  ? (mantissa != 0 ? (double)NAN : (double)INFINITY)
                       : exponent == 0 ? ldexp(mantissa, -24)
                                       : ldexp(1024 + mantissa, exponent - 25);
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

static void read_all_halves(const char *dtype, float values[65536])
{
    static uint16_t halves[65536];
    for (int i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    char header[128];
    snprintf(header, sizeof header,
             "{\"x\":{\"dtype\":\"%s\",\"shape\":[65536],\"data_offsets\":[0,131072]}}", dtype);
    SafeTensors file;
    assert_ok(safetensors_open(&file, write_file(header, halves, sizeof halves)));
    assert_ok(safetensors_read_f32(&file, "x", (int[]){65536}, 1, values));
    safetensors_close(&file);
}

// The tensor's bytes after writing values as dtype.
static void write_halves(uint16_t *out, const float *values, int count, DType dtype)
{
    TensorSpec spec = {.name = "x", .dtype = dtype, .n_dims = 1, .dims = {count}, .values = values};
    const char *path = testing_path(shared_dir(), "h.safetensors");
    assert_ok(safetensors_write(path, &spec, 1));
    SafeTensors file;
    assert_ok(safetensors_open(&file, path));
    memcpy(out, safetensors_find(&file, "x")->bytes, (size_t)count * 2);
    safetensors_close(&file);
}

static float values[65536];
static uint16_t halves[65536];

static void test_every_f16_is_read_exactly(void **state)
{
    (void)state;
    read_all_halves("F16", values);
    for (int i = 0; i < 65536; i++) {
        double expected = value_of_f16(i);
        if (isnan(expected) ? !isnan(values[i]) : (double)values[i] != expected)
            fail_msg("F16 %04x: %g, expected %g", (unsigned)i, (double)values[i], expected);
        if ((bits_of(values[i]) >> 31) != (uint32_t)(i >> 15))
            fail_msg("F16 %04x: lost its sign", (unsigned)i);
    }
}

static void test_every_bf16_is_read_exactly(void **state)
{
    (void)state;
    read_all_halves("BF16", values);
    for (int i = 0; i < 65536; i++)
        if (bits_of(values[i]) != (uint32_t)i << 16)
            fail_msg("BF16 %04x: %08x", (unsigned)i, bits_of(values[i]));
}

static void test_every_half_survives_the_way_back(void **state)
{
    (void)state;
    static const char *const names[] = {"F16", "BF16"};
    static const DType dtypes[] = {DTYPE_F16, DTYPE_BF16};
    for (int d = 0; d < 2; d++) {
        read_all_halves(names[d], values);
        write_halves(halves, values, 65536, dtypes[d]);
        for (int i = 0; i < 65536; i++)
            if (halves[i] != i)
                fail_msg("%s %04x came back as %04x", names[d], (unsigned)i, halves[i]);
    }
}

// Halfway between the halves i and i + 1; infinity counts as the next step after the largest.
static float middle_of_f16(int i)
{
    double next = i + 1 == 0x7c00 ? 65536.0 : value_of_f16(i + 1);
    return (float)((value_of_f16(i) + next) / 2);
}

static float middle_of_bf16(int i)
{
    uint32_t bits = (uint32_t)i << 16 | 0x8000u;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Between every two neighbouring halves: the middle goes to the even one, the floats next to the
// middle to the nearer one; of both signs.
static void check_rounding(DType dtype, int n_finite, float (*middle)(int))
{
    static float ties[3 * 0x7f80];
    static uint16_t got[3 * 0x7f80];
    for (int i = 0; i < n_finite; i++) {
        ties[3 * i] = middle(i);
        ties[3 * i + 1] = nextafterf(middle(i), 0.0f);
        ties[3 * i + 2] = nextafterf(middle(i), INFINITY);
    }
    for (int sign = 0; sign < 2; sign++) {
        write_halves(got, ties, 3 * n_finite, dtype);
        for (int k = 0; k < 3 * n_finite; k++) {
            int i = k / 3, even = i + (i & 1);
            int expected = (k % 3 == 0 ? even : k % 3 == 1 ? i : i + 1) | sign << 15;
            if (got[k] != expected)
                fail_msg("%s: %a became %04x, expected %04x", dtype_name(dtype), (double)ties[k],
                         got[k], (unsigned)expected);
            ties[k] = -ties[k];
        }
    }
}

static void test_f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    check_rounding(DTYPE_F16, 0x7c00, middle_of_f16);
}

static void test_bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    check_rounding(DTYPE_BF16, 0x7f80, middle_of_bf16);
}

static void test_extremes_become_infinity_zero_or_nan(void **state)
{
    (void)state;
    uint32_t small_nan = 0xff800001u; // its payload does not fit a half
    float in[6] = {INFINITY, -1e30f, 1e-30f, -1e-45f, 0};
    memcpy(&in[5], &small_nan, sizeof small_nan);
    const uint16_t f16[6] = {0x7c00, 0xfc00, 0, 0x8000, 0, 0xfe00};
    write_halves(halves, in, 6, DTYPE_F16);
    assert_memory_equal(halves, f16, sizeof f16);
    write_halves(halves, in, 6, DTYPE_BF16);
    assert_int_equal(halves[0], 0x7f80);
    assert_int_equal(halves[3], 0x8000);
    assert_int_equal(halves[5], 0xffc0);
}

static void test_written_file_is_what_others_expect(void **state)
{
    (void)state;
    const float matrix[6] = {1, -2, 3, 4, 5, 6.5f};
    const int32_t pairs[2] = {7, -1};
    const TensorSpec specs[] = {
        {"z.pairs", DTYPE_I32, 1, {2}, pairs}, {"b", DTYPE_F32, 2, {2, 3}, matrix},
        {"a", DTYPE_BF16, 2, {3, 2}, matrix},  {"scalar", DTYPE_F32, 0, {0}, matrix + 5},
        {"empty", DTYPE_F16, 2, {0, 5}, NULL},
    };
    const char *path = testing_path(shared_dir(), "w.safetensors");
    assert_ok(safetensors_write(path, specs, 5));
    FileMap map;
    assert_ok(file_map(&map, path));
    const char expected[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                            "\"z.pairs\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                            "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[8,32]},";
    assert_memory_equal(map.bytes + 8, expected, strlen(expected));
    assert_int_equal(map.bytes[0] % 8, 0);
    file_unmap(&map);

    SafeTensors file;
    assert_ok(safetensors_open(&file, path));
    assert_int_equal(file.n_tensors, 5);
    assert_string_equal(file.tensors[0].name, "a");
    float got[6];
    int32_t got_pairs[2];
    assert_ok(safetensors_read_f32(&file, "b", (int[]){2, 3}, 2, got));
    assert_memory_equal(got, matrix, sizeof matrix);
    assert_ok(safetensors_read_f32(&file, "a", (int[]){3, 2}, 2, got));
    assert_memory_equal(got, matrix, sizeof matrix); // these numbers fit BF16
    assert_ok(safetensors_read_f32(&file, "scalar", NULL, 0, got));
    assert_true(got[0] == 6.5f);
    assert_ok(safetensors_read_f32(&file, "empty", (int[]){0, 5}, 2, NULL));
    assert_ok(safetensors_read_i32(&file, "z.pairs", (int[]){2}, 1, got_pairs));
    assert_memory_equal(got_pairs, pairs, sizeof pairs);
    safetensors_close(&file);
}

static void test_large_tensor_round_trip_crosses_every_block(void **state)
{
    (void)state;
    const int count = (1 << 19) + (1 << 16) + 3; // more than a buffer and a block of threads
    float *in = malloc(sizeof *in * (size_t)count), *out = malloc(sizeof *out * (size_t)count);
    assert_true(in != NULL && out != NULL);
    for (int i = 0; i < count; i++)
        in[i] = (float)(i % 2048); // exact in F16
    static const DType dtypes[] = {DTYPE_F32, DTYPE_F16};
    const char *path = testing_path(shared_dir(), "l.safetensors");
    for (int d = 0; d < 2; d++) {
        TensorSpec spec = {"x", dtypes[d], 1, {count}, in};
        assert_ok(safetensors_write(path, &spec, 1));
        SafeTensors file;
        assert_ok(safetensors_open(&file, path));
        memset(out, 0, sizeof *out * (size_t)count);
        assert_ok(safetensors_read_f32(&file, "x", &count, 1, out));
        assert_memory_equal(out, in, sizeof *in * (size_t)count);
        safetensors_close(&file);
    }
    free(in);
    free(out);
}

static void test_wrong_reads_are_refused_by_name(void **state)
{
    (void)state;
    SafeTensors file;
    assert_ok(safetensors_open(
        &file, write_file("{\"i\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},"
                          "\"f\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[8,16]}}",
                          NULL, 16)));
    assert_int_equal(safetensors_find(&file, "i")->dtype, DTYPE_OTHER);
    assert_string_equal(safetensors_find(&file, "i")->dtype_text, "I64");
    assert_null(safetensors_find(&file, "g"));
    float x[2];
    int32_t n[2];
    assert_fails(BAD_INPUT, "tensor 'i' has dtype I64, supported are F32, F16, BF16 and F64",
                 safetensors_read_f32(&file, "i", (int[]){1}, 1, x));
    assert_fails(BAD_INPUT, "tensor 'f' has dtype F32, expected is I32",
                 safetensors_read_i32(&file, "f", (int[]){1, 2}, 2, n));
    assert_fails(BAD_INPUT, "tensor 'g' is missing",
                 safetensors_read_f32(&file, "g", (int[]){1}, 1, x));
    assert_fails(BAD_INPUT, "tensor 'f' has shape [1, 2], expected is [2, 1]",
                 safetensors_read_f32(&file, "f", (int[]){2, 1}, 2, x));
    assert_fails(BAD_INPUT, "tensor 'f' has shape [1, 2], expected is [2]",
                 safetensors_read_f32(&file, "f", (int[]){2}, 1, x));
    safetensors_close(&file);
}

static void test_every_other_dtype_of_the_format_is_listed(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int bits;
    } others[] = {{"BOOL", 8},       {"U8", 8},      {"I8", 8},      {"U16", 16},
                  {"I16", 16},       {"U32", 32},    {"U64", 64},    {"I64", 64},
                  {"C64", 64},       {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8},
                  {"F6_E2M3", 6},    {"F6_E3M2", 6}, {"F4", 4},      {"F8_E5M2FNUZ", 8},
                  {"F8_E4M3FNUZ", 8}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char header[128];
        snprintf(header, sizeof header,
                 "{\"x\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":[0,%d]}}", others[i].name,
                 others[i].bits / 2);
        SafeTensors file;
        assert_ok(safetensors_open(&file, write_file(header, NULL, 32)));
        assert_int_equal(file.tensors[0].dtype, DTYPE_OTHER);
        safetensors_close(&file);
    }
}

static void test_unaligned_data_and_metadata_are_fine(void **state)
{
    (void)state;
    unsigned char data[9] = {1};
    const float two[2] = {1.5f, -2.5f};
    memcpy(data + 1, two, sizeof two);
    SafeTensors file;
    assert_ok(safetensors_open(
        &file, write_file("{ \"__metadata__\":{\"format\":\"pt\"},"
                          "\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                          "\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]}}  ",
                          data, sizeof data)));
    assert_int_equal(file.n_tensors, 2);
    float got[2];
    assert_ok(safetensors_read_f32(&file, "f", (int[]){2}, 1, got));
    assert_memory_equal(got, two, sizeof two);
    safetensors_close(&file);
}

#define TENSOR(dtype, shape, offsets)                                                              \
    "{\"x\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_hostile_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header, *text;
    } cases[] = {
        {"", "header: empty, not JSON"},
        {"{", "not valid JSON"},
        {"[1]", "not a JSON object"},
        {"{} x", "not valid JSON"},
        {"{\"a\":1,\"a\":2}", "duplicate"},
        {"{\"x\":3}", "tensor 'x' is not described by an object"},
        {"{\"x\":{}}", "'dtype' is not a string"},
        {"{\"a\\nb\":3}", "tensor 'a?b' is"},
        {TENSOR("\"F31\"", "[1]", "[0,4]"), "unknown dtype 'F31', supported are F32, F16, BF16"},
        {TENSOR("\"F32\"", "3", "[0,4]"), "'shape' is not a list"},
        {TENSOR("\"F32\"", "[-1]", "[0,4]"), "dim 0 is not a whole number"},
        {TENSOR("\"F32\"", "[1.0]", "[0,4]"), "dim 0 is not a whole number"},
        {TENSOR("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), "has 9 dims"},
        {TENSOR("\"F32\"", "[4294967296,4294967296,4]", "[0,4]"), "product overflows"},
        {TENSOR("\"F32\"", "[4611686018427387905]", "[0,4]"), "has 4 bytes of data"},
        {TENSOR("\"F32\"", "[99999999999999999999]", "[0,4]"), "too big integer"},
        {TENSOR("\"F32\"", "[1]", "[0,4,8]"), "'data_offsets' are not two whole numbers"},
        {TENSOR("\"F32\"", "[1]", "[0]"), "'data_offsets' are not two whole numbers"},
        {TENSOR("\"F32\"", "[1]", "\"0,4\""), "'data_offsets' are not two whole numbers"},
        {TENSOR("\"F32\"", "[1]", "[0.0,4]"), "'data_offsets' are not two whole numbers"},
        {TENSOR("\"F32\"", "[1]", "[-4,0]"), "data offsets -4 to 0 are no range"},
        {TENSOR("\"F32\"", "[1]", "[8,4]"), "data offsets 8 to 4 are no range"},
        {TENSOR("\"F32\"", "[1]", "[12,20]"), "ends at byte 20, the file has 16 bytes of data"},
        {TENSOR("\"F32\"", "[1]", "[0,9223372036854775807]"), "ends at byte 9223372036854775807"},
        {TENSOR("\"F32\"", "[2]", "[0,4]"), "of F32 [2] has 4 bytes of data"},
        {TENSOR("\"F32\"", "[]", "[0,8]"), "of F32 [] has 8 bytes of data"},
        {TENSOR("\"F4\"", "[3]", "[0,1]"), "of F4 [3] has 1 bytes of data"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]},"
         "\"y\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[8,16]}}",
         "data of tensors 'x' and 'y' overlap"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"e\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]},"
         "\"y\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
         "overlap"},
    };
    SafeTensors file;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_fails(BAD_INPUT, cases[i].text,
                     safetensors_open(&file, write_file(cases[i].header, NULL, 16)));
}

static void test_wrong_header_lengths_are_refused(void **state)
{
    (void)state;
    SafeTensors file;
    assert_fails(BAD_INPUT, "header of 3 bytes in a file of 10",
                 safetensors_open(&file, write_raw(3, "{}", NULL, 0)));
    assert_fails(BAD_INPUT, "header of 18446744073709551615 bytes",
                 safetensors_open(&file, write_raw(UINT64_MAX, "{}", NULL, 0)));
    assert_fails(BAD_INPUT, "header of 9223372036854775800 bytes",
                 safetensors_open(&file, write_raw(9223372036854775800u, "{}", NULL, 0)));
    assert_fails(BAD_INPUT, "No such file",
                 safetensors_open(&file, testing_absent("x.safetensors")));
    assert_ok(safetensors_open(&file, write_raw(2, "{}", NULL, 0)));
    assert_int_equal(file.n_tensors, 0);
    assert_null(safetensors_find(&file, "x"));
    safetensors_close(&file);
}

static const TensorSpec *sample_specs(void)
{
    static const float numbers[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const TensorSpec specs[] = {{"a.weight", DTYPE_F32, 2, {2, 4}, numbers},
                                       {"b.weight", DTYPE_F16, 1, {3}, numbers}};
    return specs;
}

static void test_file_cut_at_any_length_is_refused(void **state)
{
    (void)state;
    const char *path = testing_path(shared_dir(), "t.safetensors");
    assert_ok(safetensors_write(path, sample_specs(), 2));
    SafeTensors file;
    assert_ok(safetensors_open(&file, path));
    int64_t size = file.map.size_bytes;
    safetensors_close(&file);
    for (int64_t length = size - 1; length >= 0; length--) {
        assert_int_equal(truncate(path, length), 0);
        if (safetensors_open(&file, path) != BAD_INPUT)
            fail_msg("cut at %d of %d bytes: not refused", (int)length, (int)size);
    }
}

static void test_file_cut_while_it_is_open_is_refused(void **state)
{
    (void)state;
    const char *path = testing_path(shared_dir(), "open.safetensors");
    float numbers[6] = {1, 2, 3, 4, 5, 6}, out[6];
    int32_t whole[2] = {7, 8};
    const TensorSpec specs[] = {{"i", DTYPE_I32, 1, {2}, whole},
                                {"f", DTYPE_F32, 1, {6}, numbers},
                                {"h", DTYPE_BF16, 1, {6}, numbers}};
    assert_ok(safetensors_write(path, specs, 3));
    SafeTensors file;
    assert_ok(safetensors_open(&file, path));
    int64_t size = file.map.size_bytes;
    assert_int_equal(truncate(path, size - 1), 0);
    assert_ok(safetensors_read_f32(&file, "f", (int[]){6}, 1, out));
    assert_fails(BAD_INPUT, "tensor 'h' cannot be read: the file has become shorter",
                 safetensors_read_f32(&file, "h", (int[]){6}, 1, out));
    assert_int_equal(truncate(path, size - 13), 0);
    assert_fails(BAD_INPUT, "tensor 'f' cannot be read: the file has become shorter",
                 safetensors_read_f32(&file, "f", (int[]){6}, 1, out));
    assert_int_equal(truncate(path, size - 37), 0);
    assert_fails(BAD_INPUT, "tensor 'i' cannot be read: the file has become shorter",
                 safetensors_read_i32(&file, "i", (int[]){2}, 1, whole));
    safetensors_close(&file);
}

// Whatever the bytes are, opening and reading end with OK or one line of text (the sanitizers watch
// the rest).
static void test_damaged_bytes_never_crash(void **state)
{
    (void)state;
    const char *path = testing_path(shared_dir(), "d.safetensors");
    assert_ok(safetensors_write(path, sample_specs(), 2));
    FileMap map;
    assert_ok(file_map(&map, path));
    size_t size = (size_t)map.size_bytes;
    unsigned char *whole = malloc(size), *bytes = malloc(size);
    assert_true(whole != NULL && bytes != NULL);
    memcpy(whole, map.bytes, size);
    file_unmap(&map);
    int n_refused = 0;
    for (uint64_t round = 0; round < 1000; round++) {
        memcpy(bytes, whole, size);
        for (uint64_t k = 0; k <= random_bits(1, round) % 3; k++) {
            uint64_t bits = random_bits(2 + k, round);
            static const char likely[] = "0123456789,[]{}\"-. :F";
            bytes[bits % size] = (bits >> 32) % 2 == 0 ? (unsigned char)(bits >> 40)
                                                       : (unsigned char)likely[(bits >> 40) % 21];
        }
        write_bytes(path, bytes, size);
        SafeTensors file;
        float out[8];
        Status status = safetensors_open(&file, path);
        if (status == OK) {
            Status read = safetensors_read_f32(&file, "a.weight", (int[]){2, 4}, 2, out);
            assert_true(read == OK || read == BAD_INPUT);
            safetensors_close(&file);
            continue;
        }
        assert_fails(BAD_INPUT, "d.safetensors", status);
        n_refused++;
    }
    assert_in_range(n_refused, 700, 999); // seen 885
    free(whole);
    free(bytes);
}

static void test_tensors_beyond_4_gb_are_found(void **state)
{
    (void)state;
    const char *header =
        "{\"pad\":{\"dtype\":\"U8\",\"shape\":[5000000000],\"data_offsets\":[0,5000000000]},"
        "\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[5000000000,5000000008]}}";
    const char *path = write_file(header, NULL, 0);
    const float two[2] = {1.5f, -2.5f};
    FILE *stream = fopen(path, "r+b"); // sparse: takes no disk space
    assert_non_null(stream);
    assert_int_equal(fseeko(stream, (off_t)(8 + (int64_t)strlen(header) + 5000000000), SEEK_SET),
                     0);
    assert_int_equal(fwrite(two, sizeof two, 1, stream), 1);
    assert_int_equal(fclose(stream), 0);
    SafeTensors file;
    float got[2];
    assert_ok(safetensors_open(&file, path));
    assert_ok(safetensors_read_f32(&file, "x", (int[]){2}, 1, got));
    assert_memory_equal(got, two, sizeof two);
    safetensors_close(&file);
}

static void test_write_to_a_missing_directory_is_reported(void **state)
{
    (void)state;
    assert_fails(FAILED, "cannot be written: No such file",
                 safetensors_write(testing_absent("x.safetensors"), sample_specs(), 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_f16_is_read_exactly),
        cmocka_unit_test(test_every_bf16_is_read_exactly),
        cmocka_unit_test(test_every_half_survives_the_way_back),
        cmocka_unit_test(test_f16_rounds_to_nearest_even),
        cmocka_unit_test(test_bf16_rounds_to_nearest_even),
        cmocka_unit_test(test_extremes_become_infinity_zero_or_nan),
        cmocka_unit_test(test_written_file_is_what_others_expect),
        cmocka_unit_test(test_large_tensor_round_trip_crosses_every_block),
        cmocka_unit_test(test_wrong_reads_are_refused_by_name),
        cmocka_unit_test(test_every_other_dtype_of_the_format_is_listed),
        cmocka_unit_test(test_unaligned_data_and_metadata_are_fine),
        cmocka_unit_test(test_hostile_headers_are_refused),
        cmocka_unit_test(test_wrong_header_lengths_are_refused),
        cmocka_unit_test(test_file_cut_at_any_length_is_refused),
        cmocka_unit_test(test_file_cut_while_it_is_open_is_refused),
        cmocka_unit_test(test_damaged_bytes_never_crash),
        cmocka_unit_test(test_tensors_beyond_4_gb_are_found),
        cmocka_unit_test(test_write_to_a_missing_directory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
