#include "model/hf/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUFFER_COUNT = 1 << 19, // numbers converted before they are written
    PART_COUNT = 1 << 16,   // of them by a thread at a time
};

int64_t tensor_spec_count(const TensorSpec *spec)
{
    int64_t count = 1;
    // Shapes come from the model, so a bad one is our fault.
    CHECK(spec->n_dims >= 0 && spec->n_dims <= SAFETENSORS_MAX_DIMS, "%d dims", spec->n_dims);
    for (int i = 0; i < spec->n_dims; i++)
        CHECK(spec->dims[i] >= 0 && !__builtin_mul_overflow(count, spec->dims[i], &count),
              "tensor %s: dim %d is %lld", spec->name, i, (long long)spec->dims[i]);
    return count;
}

const float *tensor_spec_values(const TensorSpec *spec, float *scratch)
{
    if (spec->make == NULL)
        return spec->values;
    spec->make(scratch, spec->context, spec->tensor);
    return scratch;
}

int64_t tensor_specs_scratch(const TensorSpec *tensors, int n_tensors)
{
    int64_t most = 0;
    for (int i = 0; i < n_tensors; i++) {
        const int64_t count = tensor_spec_count(&tensors[i]);
        if (tensors[i].make != NULL && count > most)
            most = count;
    }
    return most;
}

// {"dtype": "BF16", "shape": [576, 576], "data_offsets": [0, 663552]}; offsets count from the end
// of the header.
static json_t *describe(const TensorSpec *spec, int64_t begin, int64_t end)
{
    json_t *dims = json_array();
    for (int i = 0; i < spec->n_dims; i++)
        json_array_append_new(dims, json_integer(spec->dims[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_name(spec->dtype), "shape", dims,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

// The header as text; NULL if memory is short.
static char *make_header(const TensorSpec *tensors, int n_tensors)
{
    // transformers refuses files whose metadata does not name a framework ("pt").
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    int64_t begin = 0;
    for (int i = 0; i < n_tensors; i++) {
        const TensorSpec *spec = &tensors[i];
        int64_t end = begin + tensor_spec_count(spec) * dtype_size_bytes(spec->dtype);
        CHECK(json_object_get(header, spec->name) == NULL, "two tensors are named %s", spec->name);
        if (json_object_set_new(header, spec->name, describe(spec, begin, end)) != 0) {
            json_decref(header);
            return NULL;
        }
        begin = end;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    return text;
}

// Prefix and header, padded with spaces so that the data start at a multiple of 8.
static Status write_header(AtomicFile *file, const TensorSpec *tensors, int n_tensors)
{
    char *text = make_header(tensors, n_tensors);
    if (text == NULL)
        return fail(FAILED, "%s: no memory for a header of %d tensors", file->path, n_tensors);
    size_t length = strlen(text);
    uint64_t padded = (length + 7) / 8 * 8;
    // Eight bytes, little-endian (safetensors.c asserts the machine's order), then the JSON.
    fwrite(&padded, sizeof padded, 1, file->stream);
    fprintf(file->stream, "%s%*s", text, (int)(padded - length), "");
    free(text);
    return OK; // tensor_writer_put() and file_commit() see the stream's error
}

// ---- numbers -----------------------------------------------------------------------------------

static void encode_block(void *out, const float *values, TensorEncoding encoding, int64_t count)
{
#pragma omp parallel for schedule(static) if (count > PART_COUNT)
    for (int64_t first = 0; first < count; first += PART_COUNT) {
        const int64_t left = count - first;
        encoding.encode((char *)out + first / encoding.numbers * encoding.bytes, values + first,
                        left < PART_COUNT ? left : PART_COUNT);
    }
}

void tensor_writer_release(TensorWriter *writer)
{
    progress_end(&writer->meter);
    free(writer->made);
    free(writer->block);
}

Status tensor_writer_create(TensorWriter *out, const char *path, const TensorSpec *tensors,
                            int n_tensors)
{
    const int64_t scratch = tensor_specs_scratch(tensors, n_tensors);
    TensorWriter writer = {.block = malloc(BUFFER_COUNT * sizeof(float))};
    int64_t n_numbers = 0;
    if (scratch > 0)
        writer.made = malloc((size_t)scratch * sizeof *writer.made);
    if (writer.block == NULL || (scratch > 0 && writer.made == NULL)) {
        free(writer.block);
        free(writer.made);
        return fail(FAILED, "%s: no memory for a buffer", path);
    }
    for (int i = 0; i < n_tensors; i++)
        n_numbers += tensor_spec_count(&tensors[i]);
    writer.meter = progress_start(path, "numbers", n_numbers);
    *out = writer;
    return OK;
}

Status tensor_writer_put(TensorWriter *writer, AtomicFile *file, const TensorSpec *spec,
                         TensorEncoding encoding)
{
    const int64_t count = tensor_spec_count(spec);
    const void *values = spec->make == NULL ? spec->values : tensor_spec_values(spec, writer->made);
    CHECK(count % encoding.numbers == 0, "tensor %s has %lld numbers", spec->name,
          (long long)count);
    for (int64_t first = 0; first < count; first += BUFFER_COUNT) {
        const int64_t n = count - first < BUFFER_COUNT ? count - first : BUFFER_COUNT;
        const size_t size = (size_t)(n / encoding.numbers * encoding.bytes);
        const void *bytes = writer->block;
        if (encoding.encode != NULL)
            encode_block(writer->block, (const float *)values + first, encoding, n);
        else
            bytes = (const char *)values + first * encoding.bytes;
        if (fwrite(bytes, 1, size, file->stream) != size)
            return fail(FAILED, "%s: write failed: %s", file->path, strerror(errno));
        writer->n_done += n;
        progress_show(&writer->meter, writer->n_done);
    }
    return OK;
}

// Round to nearest even; the caller has checked that no finite value rounds to infinity.
static void encode_f16(void *out, const float *values, int64_t count)
{
    dtype_narrow(out, DTYPE_F16, values, count);
}

static void encode_bf16(void *out, const float *values, int64_t count)
{
    dtype_narrow(out, DTYPE_BF16, values, count);
}

TensorEncoding tensor_encoding(DType dtype)
{
    return (TensorEncoding){.numbers = 1,
                            .bytes = (int)dtype_size_bytes(dtype),
                            .encode = dtype == DTYPE_F16    ? encode_f16
                                      : dtype == DTYPE_BF16 ? encode_bf16
                                                            : NULL};
}

Status safetensors_write(const char *path, const TensorSpec *tensors, int n_tensors)
{
    AtomicFile file;
    TensorWriter writer;
    Status status;
    TRY(tensor_writer_create(&writer, path, tensors, n_tensors));
    TRY_GOTO(release_writer, file_begin(&file, path));
    TRY_GOTO(abandon_file, write_header(&file, tensors, n_tensors));
    for (int i = 0; i < n_tensors; i++)
        TRY_GOTO(abandon_file,
                 tensor_writer_put(&writer, &file, &tensors[i], tensor_encoding(tensors[i].dtype)));
    status = file_commit(&file);
    goto release_writer;
abandon_file:
    file_abandon(&file);
release_writer:
    tensor_writer_release(&writer);
    return status;
}
