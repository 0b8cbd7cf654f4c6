// Numbers are converted to 16 bits in a buffer of a megabyte, and a tensor that is made is held
// while it is written: nothing of the model's size is allocated for saving.
#include "model/hf/safetensors.h"

#include "base/progress.h"

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
    return OK; // write_tensor() and file_commit() see the stream's error
}

// Round to nearest even; the caller has checked that no finite value rounds to infinity.
static void convert_block(uint16_t *restrict out, const float *restrict values, DType dtype,
                          int64_t count)
{
#pragma omp parallel for schedule(static) if (count > PART_COUNT)
    for (int64_t first = 0; first < count; first += PART_COUNT) {
        const int64_t left = count - first;
        dtype_narrow(out + first, dtype, values + first, left < PART_COUNT ? left : PART_COUNT);
    }
}

typedef struct WriteBuffers {
    uint16_t *narrow; // [BUFFER_COUNT]
    float *made;      // of the largest made tensor; NULL: there is none
} WriteBuffers;

// Counts what is written in *n_done, in numbers.
static Status write_tensor(AtomicFile *file, const TensorSpec *spec, const WriteBuffers *buffers,
                           ProgressMeter *meter, int64_t *n_done)
{
    int64_t count = tensor_spec_count(spec), size = dtype_size_bytes(spec->dtype);
    const void *values =
        spec->make == NULL ? spec->values : tensor_spec_values(spec, buffers->made);
    for (int64_t first = 0; first < count; first += BUFFER_COUNT) {
        int64_t n = count - first < BUFFER_COUNT ? count - first : BUFFER_COUNT;
        const void *bytes = buffers->narrow;
        if (size == 2)
            convert_block(buffers->narrow, (const float *)values + first, spec->dtype, n);
        else
            bytes = (const char *)values + first * size;
        if (fwrite(bytes, (size_t)size, (size_t)n, file->stream) != (size_t)n)
            return fail(FAILED, "%s: write failed: %s", file->path, strerror(errno));
        *n_done += n;
        progress_show(meter, *n_done);
    }
    return OK;
}

static Status buffers_create(WriteBuffers *out, const char *path, const TensorSpec *tensors,
                             int n_tensors)
{
    const int64_t scratch = tensor_specs_scratch(tensors, n_tensors);
    WriteBuffers buffers = {.narrow = malloc(BUFFER_COUNT * sizeof *buffers.narrow)};
    if (scratch > 0)
        buffers.made = malloc((size_t)scratch * sizeof *buffers.made);
    if (buffers.narrow == NULL || (scratch > 0 && buffers.made == NULL)) {
        free(buffers.narrow);
        free(buffers.made);
        return fail(FAILED, "%s: no memory for a buffer", path);
    }
    *out = buffers;
    return OK;
}

Status safetensors_write(const char *path, const TensorSpec *tensors, int n_tensors)
{
    AtomicFile file;
    WriteBuffers buffers;
    int64_t n_numbers = 0, n_done = 0;
    for (int i = 0; i < n_tensors; i++)
        n_numbers += tensor_spec_count(&tensors[i]);
    TRY(buffers_create(&buffers, path, tensors, n_tensors));
    ProgressMeter meter = progress_start(path, "numbers", n_numbers);
    Status status;
    TRY_GOTO(free_buffers, file_begin(&file, path));
    TRY_GOTO(abandon_file, write_header(&file, tensors, n_tensors));
    for (int i = 0; i < n_tensors; i++)
        TRY_GOTO(abandon_file, write_tensor(&file, &tensors[i], &buffers, &meter, &n_done));
    status = file_commit(&file);
    goto free_buffers;
abandon_file:
    file_abandon(&file);
free_buffers:
    progress_end(&meter);
    free(buffers.made);
    free(buffers.narrow);
    return status;
}
