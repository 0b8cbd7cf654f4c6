#include "model/gguf/gguf_file.h"

#include "model/gguf/gguf_block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char magic[] = "GGUF";

enum { ALIGNMENT = 32, FORMAT_VERSION = 3 };

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are written as they are");

// ---- metadata ----------------------------------------------------------------------------------

Status gguf_meta_create(GgufMeta *out)
{
    *out = (GgufMeta){0};
    out->stream = open_memstream(&out->bytes, &out->size_bytes);
    return out->stream != NULL ? OK : fail(FAILED, "no memory for a file's metadata");
}

void gguf_meta_release(GgufMeta *meta)
{
    fclose(meta->stream);
    free(meta->bytes);
    *meta = (GgufMeta){0};
}

// Errors stay in the stream: gguf_write() asks the metadata's, file_commit() the file's.
static void put_u32(FILE *stream, uint32_t value)
{
    fwrite(&value, sizeof value, 1, stream);
}

static void put_u64(FILE *stream, uint64_t value)
{
    fwrite(&value, sizeof value, 1, stream);
}

static void put_text(FILE *stream, const char *text, size_t size_bytes)
{
    put_u64(stream, size_bytes);
    fwrite(text, 1, size_bytes, stream);
}

static void put_key(GgufMeta *meta, const char *key, GgufValue kind)
{
    put_text(meta->stream, key, strlen(key));
    put_u32(meta->stream, kind);
    meta->n_keys++;
}

void gguf_put_u32(GgufMeta *meta, const char *key, int64_t value)
{
    CHECK(value >= 0 && value <= UINT32_MAX, "%s is %lld", key, (long long)value);
    put_key(meta, key, GGUF_VALUE_U32);
    put_u32(meta->stream, (uint32_t)value);
}

void gguf_put_f32(GgufMeta *meta, const char *key, double value)
{
    put_key(meta, key, GGUF_VALUE_F32);
    gguf_add_f32(meta, (float)value);
}

void gguf_put_bool(GgufMeta *meta, const char *key, bool value)
{
    put_key(meta, key, GGUF_VALUE_BOOL);
    fputc(value, meta->stream);
}

void gguf_put_text(GgufMeta *meta, const char *key, const char *value)
{
    put_key(meta, key, GGUF_VALUE_TEXT);
    put_text(meta->stream, value, strlen(value));
}

void gguf_put_array(GgufMeta *meta, const char *key, GgufValue kind, int64_t count)
{
    put_key(meta, key, GGUF_VALUE_ARRAY);
    put_u32(meta->stream, kind);
    put_u64(meta->stream, (uint64_t)count);
}

void gguf_add_text(GgufMeta *meta, const char *text, int64_t size_bytes)
{
    put_text(meta->stream, text, (size_t)size_bytes);
}

void gguf_add_pair(GgufMeta *meta, const char *left, int64_t left_bytes, const char *right,
                   int64_t right_bytes)
{
    put_u64(meta->stream, (uint64_t)(left_bytes + 1 + right_bytes));
    fwrite(left, 1, (size_t)left_bytes, meta->stream);
    fputc(' ', meta->stream);
    fwrite(right, 1, (size_t)right_bytes, meta->stream);
}

void gguf_add_i32(GgufMeta *meta, int32_t value)
{
    fwrite(&value, sizeof value, 1, meta->stream);
}

void gguf_add_f32(GgufMeta *meta, float value)
{
    fwrite(&value, sizeof value, 1, meta->stream);
}

// ---- tensors -----------------------------------------------------------------------------------

static TensorEncoding encoding_of(GgufType type)
{
    switch (type) {
    case GGUF_F32:
        return tensor_encoding(DTYPE_F32);
    case GGUF_F16:
        return tensor_encoding(DTYPE_F16);
    case GGUF_BF16:
        return tensor_encoding(DTYPE_BF16);
    case GGUF_Q8_0:
        break;
    }
    return (TensorEncoding){Q8_0_NUMBERS, Q8_0_BYTES, q8_0_encode};
}

static int64_t padding(int64_t size_bytes)
{
    return (ALIGNMENT - size_bytes % ALIGNMENT) % ALIGNMENT;
}

static int64_t size_of(const TensorSpec *spec, GgufType type)
{
    const TensorEncoding encoding = encoding_of(type);
    return tensor_spec_count(spec) / encoding.numbers * encoding.bytes;
}

static void pad(FILE *stream, int64_t size_bytes)
{
    for (int64_t i = padding(size_bytes); i > 0; i--)
        fputc(0, stream);
}

// Name, dims with the one that changes fastest first, type, and the place in the data.
static void put_infos(FILE *stream, const TensorList *tensors, const GgufType *types)
{
    int64_t offset = 0;
    for (int i = 0; i < tensors->n_specs; i++) {
        const TensorSpec *spec = &tensors->specs[i];
        const int64_t size = size_of(spec, types[i]);
        put_text(stream, spec->name, strlen(spec->name));
        put_u32(stream, (uint32_t)spec->n_dims);
        for (int d = spec->n_dims - 1; d >= 0; d--)
            put_u64(stream, (uint64_t)spec->dims[d]);
        put_u32(stream, types[i]);
        put_u64(stream, (uint64_t)offset);
        offset += size + padding(size);
    }
}

static Status write_header(AtomicFile *file, GgufMeta *meta, const TensorList *tensors,
                           const GgufType *types)
{
    FILE *stream = file->stream;
    if (fflush(meta->stream) != 0 || ferror(meta->stream))
        return fail(FAILED, "%s: no memory for the metadata", file->path);
    fwrite(magic, 1, 4, stream);
    put_u32(stream, FORMAT_VERSION);
    put_u64(stream, (uint64_t)tensors->n_specs);
    put_u64(stream, meta->n_keys);
    fwrite(meta->bytes, 1, meta->size_bytes, stream);
    put_infos(stream, tensors, types);
    const off_t at = ftello(stream);
    if (at < 0)
        return fail(FAILED, "%s: write failed: %s", file->path, strerror(errno));
    pad(stream, at);
    return OK;
}

Status gguf_check_target(const char *path)
{
    FileMap map;
    TRY(file_check_target(path));
    if (!file_exists(path))
        return OK;
    TRY(file_map(&map, path));
    const bool is_other =
        map.size_bytes > 0 && (map.size_bytes < 4 || memcmp(map.bytes, magic, 4) != 0);
    file_unmap(&map);
    return is_other ? fail(BAD_INPUT, "%s: is there and no GGUF file; name another", path) : OK;
}

Status gguf_write(const char *path, GgufMeta *meta, const TensorList *tensors,
                  const GgufType *types)
{
    AtomicFile file;
    TensorWriter writer;
    Status status;
    TRY(tensor_writer_create(&writer, path, tensors->specs, tensors->n_specs));
    TRY_GOTO(release_writer, file_begin(&file, path));
    TRY_GOTO(abandon_file, write_header(&file, meta, tensors, types));
    for (int i = 0; i < tensors->n_specs; i++) {
        const TensorSpec *spec = &tensors->specs[i];
        TRY_GOTO(abandon_file, tensor_writer_put(&writer, &file, spec, encoding_of(types[i])));
        pad(file.stream, size_of(spec, types[i]));
    }
    status = file_commit(&file);
    goto release_writer;
abandon_file:
    file_abandon(&file);
release_writer:
    tensor_writer_release(&writer);
    return status;
}
