#include "tests/support/testing_gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Bytes of the format's scalar kinds; 0: none.
static const int scalar_bytes[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

static const unsigned char *take(GgufRead *file, int64_t size_bytes)
{
    const unsigned char *bytes = file->map.bytes + file->at;
    if (size_bytes < 0 || size_bytes > file->map.size_bytes - file->at)
        fail_msg("the file ends within %lld bytes at %lld", (long long)size_bytes,
                 (long long)file->at);
    file->at += size_bytes;
    return bytes;
}

static uint32_t take_u32(GgufRead *file)
{
    uint32_t value;
    memcpy(&value, take(file, sizeof value), sizeof value);
    return value;
}

static uint64_t take_u64(GgufRead *file)
{
    uint64_t value;
    memcpy(&value, take(file, sizeof value), sizeof value);
    return value;
}

static void take_name(GgufRead *file, char out[GGUF_READ_NAME_BYTES])
{
    const uint64_t size = take_u64(file);
    assert_true(size > 0 && size < 64); // a tensor's name has at most 64 bytes
    memcpy(out, take(file, (int64_t)size), size);
    out[size] = '\0';
}

static void skip_value(GgufRead *file, uint32_t kind)
{
    if (kind == 8)
        take(file, (int64_t)take_u64(file));
    else
        take(file, scalar_bytes[kind]);
}

static void read_key(GgufRead *file, GgufKey *key)
{
    take_name(file, key->name);
    key->kind = take_u32(file);
    assert_true(key->kind < 13);
    if (key->kind == 9) {
        key->element = take_u32(file);
        assert_true(key->element < 13 && key->element != 9);
    }
    if (key->kind == 8 || key->kind == 9)
        key->count = take_u64(file);
    key->bytes = file->map.bytes + file->at;
    if (key->kind == 8)
        take(file, (int64_t)key->count);
    for (uint64_t i = 0; key->kind == 9 && i < key->count; i++)
        skip_value(file, key->element);
    if (key->kind < 8 || key->kind > 9)
        take(file, scalar_bytes[key->kind]);
}

static int64_t tensor_bytes(const GgufInfo *info)
{
    switch (info->type) {
    case 0:
        return 4 * info->count;
    case 1:
    case 30:
        return 2 * info->count;
    case 8:
        assert_true(info->dims[0] % 32 == 0);
        return info->count / 32 * 34;
    }
    fail_msg("%s has type %u", info->name, info->type);
    return 0;
}

void testing_gguf_read(GgufRead *out, const char *path)
{
    uint64_t offsets[GGUF_READ_MAX_TENSORS];
    *out = (GgufRead){0};
    assert_ok(file_map(&out->map, path));
    assert_memory_equal(take(out, 4), "GGUF", 4);
    assert_int_equal(take_u32(out), 3);
    out->n_tensors = (int)take_u64(out);
    out->n_keys = (int)take_u64(out);
    assert_true(out->n_keys <= GGUF_READ_MAX_KEYS && out->n_tensors <= GGUF_READ_MAX_TENSORS);
    for (int i = 0; i < out->n_keys; i++) {
        read_key(out, &out->keys[i]);
        assert_ptr_equal(testing_gguf_key(out, out->keys[i].name), &out->keys[i]);
    }
    for (int i = 0; i < out->n_tensors; i++) {
        GgufInfo *info = &out->tensors[i];
        take_name(out, info->name);
        info->n_dims = take_u32(out);
        assert_in_range(info->n_dims, 1, 4);
        info->count = 1;
        for (uint32_t d = 0; d < info->n_dims; d++) {
            info->dims[d] = take_u64(out);
            info->count *= (int64_t)info->dims[d];
        }
        info->type = take_u32(out);
        offsets[i] = take_u64(out);
    }
    const int64_t start = (out->at + 31) / 32 * 32;
    int64_t expected = 0;
    for (int i = 0; i < out->n_tensors; i++) {
        assert_int_equal(offsets[i], expected);
        out->tensors[i].bytes = out->map.bytes + start + expected;
        expected += (tensor_bytes(&out->tensors[i]) + 31) / 32 * 32;
    }
    assert_int_equal(out->map.size_bytes, start + expected);
}

void testing_gguf_release(GgufRead *file)
{
    file_unmap(&file->map);
}

const GgufKey *testing_gguf_key(const GgufRead *file, const char *name)
{
    for (int i = 0; i < file->n_keys; i++)
        if (strcmp(file->keys[i].name, name) == 0)
            return &file->keys[i];
    return NULL;
}

const GgufInfo *testing_gguf_tensor(const GgufRead *file, const char *name)
{
    for (int i = 0; i < file->n_tensors; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}

static const GgufKey *get_key(const GgufRead *file, const char *name, uint32_t kind)
{
    const GgufKey *key = testing_gguf_key(file, name);
    if (key == NULL || key->kind != kind)
        fail_msg("%s: %s", name, key == NULL ? "missing" : "of another kind");
    return key;
}

void testing_gguf_assert_u32(const GgufRead *file, const char *name, uint32_t value)
{
    uint32_t got;
    memcpy(&got, get_key(file, name, 4)->bytes, sizeof got);
    if (got != value)
        fail_msg("%s is %u, expected %u", name, got, value);
}

void testing_gguf_assert_text(const GgufRead *file, const char *name, const char *value)
{
    const GgufKey *key = get_key(file, name, 8);
    if (key->count != strlen(value) || memcmp(key->bytes, value, key->count) != 0)
        fail_msg("%s is '%.*s', expected '%s'", name, (int)key->count, (const char *)key->bytes,
                 value);
}

void testing_gguf_assert_element(const GgufRead *file, const char *name, int index,
                                 const char *text)
{
    const GgufKey *key = get_key(file, name, 9);
    const unsigned char *at = key->bytes;
    uint64_t size;
    assert_int_equal(key->element, 8);
    assert_true((uint64_t)index < key->count);
    for (int i = 0; i < index; i++) {
        memcpy(&size, at, sizeof size);
        at += sizeof size + size;
    }
    memcpy(&size, at, sizeof size);
    if (size != strlen(text) || memcmp(at + sizeof size, text, size) != 0)
        fail_msg("%s[%d] is '%.*s', expected '%s'", name, index, (int)size,
                 (const char *)at + sizeof size, text);
}

static double half_value(const unsigned char *bytes)
{
    const int bits = bytes[0] | bytes[1] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double magnitude =
        exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static float value_of(const GgufInfo *info, int64_t i)
{
    float value;
    if (info->type == 0) {
        memcpy(&value, info->bytes + 4 * i, sizeof value);
        return value;
    }
    if (info->type == 8) {
        const unsigned char *block = info->bytes + i / 32 * 34;
        const int code = block[2 + i % 32];
        return (float)(half_value(block) * (code < 128 ? code : code - 256));
    }
    if (info->type == 30) {
        const uint32_t bits = (uint32_t)(info->bytes[2 * i] | info->bytes[2 * i + 1] << 8) << 16;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    return (float)half_value(info->bytes + 2 * i);
}

float *testing_gguf_values(const GgufRead *file, const char *name)
{
    const GgufInfo *info = testing_gguf_tensor(file, name);
    if (info == NULL)
        fail_msg("no tensor %s", name);
    float *values = malloc((size_t)info->count * sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < info->count; i++)
        values[i] = value_of(info, i);
    return values;
}
