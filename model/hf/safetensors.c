// The header is read through a map, the tensors with pread(), in parts that stay in cache until
// they are converted to their final place. So no page of a large file is resident besides its
// numbers, and a file that is cut short or a disk that fails is an error, where reading a map would
// be a signal. Numbers in the file are little-endian, as are the machines we run on.
#include "model/hf/safetensors.h"

#include "base/file_kind.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are copied as they are");

enum {
    PREFIX_BYTES = 8,                 // the header's length
    HEADER_MAX_BYTES = 100 * 1000000, // the reference implementation's limit
    AHEAD_BYTES = 64 << 20,           // asked of the disk in advance
    PART_COUNT = 1 << 16,             // numbers a thread reads at a time: they fit the second cache
    DIMS_TEXT_BYTES = 22 * SAFETENSORS_MAX_DIMS + 3,
};

typedef struct DTypeDesc {
    const char *name;
    DType dtype;
    int size_bits;
} DTypeDesc;

// The format's dtypes, ours first.
static const DTypeDesc dtypes[] = {
    {"F32", DTYPE_F32, 32},          {"F16", DTYPE_F16, 16},      {"BF16", DTYPE_BF16, 16},
    {"I32", DTYPE_I32, 32},          {"BOOL", DTYPE_OTHER, 8},    {"U8", DTYPE_OTHER, 8},
    {"I8", DTYPE_OTHER, 8},          {"U16", DTYPE_OTHER, 16},    {"I16", DTYPE_OTHER, 16},
    {"U32", DTYPE_OTHER, 32},        {"U64", DTYPE_OTHER, 64},    {"I64", DTYPE_OTHER, 64},
    {"F64", DTYPE_F64, 64},          {"C64", DTYPE_OTHER, 64},    {"F8_E5M2", DTYPE_OTHER, 8},
    {"F8_E4M3", DTYPE_OTHER, 8},     {"F8_E8M0", DTYPE_OTHER, 8}, {"F8_E5M2FNUZ", DTYPE_OTHER, 8},
    {"F8_E4M3FNUZ", DTYPE_OTHER, 8}, {"F6_E2M3", DTYPE_OTHER, 6}, {"F6_E3M2", DTYPE_OTHER, 6},
    {"F4", DTYPE_OTHER, 4},
};

enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

// Dtypes that are not read are known by size, so that a file which holds some beside ours is
// checked and not refused.
static const DTypeDesc *find_dtype(const char *name)
{
    for (int i = 0; i < N_DTYPES; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    return NULL;
}

// "[512, 64]"
static void print_dims(char out[DIMS_TEXT_BYTES], const int64_t *dims, int n_dims)
{
    int used = snprintf(out, DIMS_TEXT_BYTES, "[");
    for (int i = 0; i < n_dims; i++)
        used += snprintf(out + used, (size_t)(DIMS_TEXT_BYTES - used), i > 0 ? ", %lld" : "%lld",
                         (long long)dims[i]);
    snprintf(out + used, (size_t)(DIMS_TEXT_BYTES - used), "]");
}

// Dims may be 0; their product must fit int64_t, also times the bits of a number.
static Status read_dims(TensorInfo *tensor, int64_t *count, const json_t *entry, const char *path)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return fail(BAD_INPUT, "%s: tensor '%.200s': 'shape' is not a list", path, tensor->name);
    if (json_array_size(shape) > SAFETENSORS_MAX_DIMS)
        return fail(BAD_INPUT, "%s: tensor '%.200s' has %zu dims, supported are up to %d", path,
                    tensor->name, json_array_size(shape), SAFETENSORS_MAX_DIMS);
    int64_t product = 1;
    tensor->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < tensor->n_dims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return fail(BAD_INPUT, "%s: tensor '%.200s': dim %d is not a whole number from 0", path,
                        tensor->name, i);
        tensor->dims[i] = json_integer_value(dim);
        if (__builtin_mul_overflow(product, tensor->dims[i], &product))
            return fail(BAD_INPUT, "%s: tensor '%.200s': the shape's product overflows", path,
                        tensor->name);
    }
    *count = product;
    return OK;
}

// Offsets are relative to the end of the header. data_bytes is what the file has, so a truncated
// download is noticed when it is opened.
static Status read_offsets(TensorInfo *tensor, const json_t *entry, const SafeTensors *file,
                           int64_t data_start)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return fail(BAD_INPUT, "%s: tensor '%.200s': 'data_offsets' are not two whole numbers",
                    file->path, tensor->name);
    int64_t first = json_integer_value(begin), last = json_integer_value(end);
    int64_t data_bytes = file->map.size_bytes - data_start;
    if (first < 0 || first > last)
        return fail(BAD_INPUT, "%s: tensor '%.200s': data offsets %lld to %lld are no range",
                    file->path, tensor->name, (long long)first, (long long)last);
    if (last > data_bytes)
        return fail(BAD_INPUT,
                    "%s: tensor '%.200s' ends at byte %lld, the file has %lld bytes of data; it is "
                    "damaged or was not copied completely",
                    file->path, tensor->name, (long long)last, (long long)data_bytes);
    tensor->bytes = file->map.bytes + data_start + first;
    tensor->size_bytes = last - first;
    return OK;
}

static Status read_tensor(TensorInfo *out, const char *name, const json_t *entry,
                          const SafeTensors *file, int64_t data_start)
{
    TensorInfo tensor = {.name = name};
    if (!json_is_object(entry))
        return fail(BAD_INPUT, "%s: tensor '%.200s' is not described by an object", file->path,
                    name);
    tensor.dtype_text = json_string_value(json_object_get(entry, "dtype"));
    if (tensor.dtype_text == NULL)
        return fail(BAD_INPUT, "%s: tensor '%.200s': 'dtype' is not a string", file->path, name);
    const DTypeDesc *dtype = find_dtype(tensor.dtype_text);
    if (dtype == NULL)
        return fail(BAD_INPUT,
                    "%s: tensor '%.200s' has unknown dtype '%.50s', supported are F32, F16, BF16, "
                    "F64 and I32",
                    file->path, name, tensor.dtype_text);
    tensor.dtype = dtype->dtype;
    int64_t count, size_bits;
    TRY(read_dims(&tensor, &count, entry, file->path));
    TRY(read_offsets(&tensor, entry, file, data_start));
    // In bits, since F4 and F6 have fractions of a byte.
    if (__builtin_mul_overflow(count, dtype->size_bits, &size_bits) || size_bits % 8 != 0 ||
        size_bits / 8 != tensor.size_bytes) {
        char dims[DIMS_TEXT_BYTES];
        print_dims(dims, tensor.dims, tensor.n_dims);
        return fail(
            BAD_INPUT,
            "%s: tensor '%.200s' of %s %s has %lld bytes of data, which does not fit; the file "
            "is damaged",
            file->path, name, tensor.dtype_text, dims, (long long)tensor.size_bytes);
    }
    *out = tensor;
    return OK;
}

// Empty tensors before others at the same place.
static int compare_place(const void *a, const void *b)
{
    const TensorInfo *first = a, *second = b;
    if (first->bytes != second->bytes)
        return first->bytes < second->bytes ? -1 : 1;
    return (first->size_bytes > second->size_bytes) - (first->size_bytes < second->size_bytes);
}

static int compare_name(const void *a, const void *b)
{
    const TensorInfo *first = a, *second = b;
    return strcmp(first->name, second->name);
}

// Sorts by place: then overlapping tensors are neighbours.
// Overlapping tensors are refused as the reference implementation does: such a file is damaged or
// crafted.
static Status check_overlaps(SafeTensors *file)
{
    qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, compare_place);
    const TensorInfo *last = NULL; // empty tensors may lie anywhere
    for (int i = 0; i < file->n_tensors; i++) {
        const TensorInfo *tensor = &file->tensors[i];
        if (tensor->size_bytes == 0)
            continue;
        if (last != NULL && tensor->bytes < last->bytes + last->size_bytes)
            return fail(BAD_INPUT, "%s: the data of tensors '%.200s' and '%.200s' overlap",
                        file->path, last->name, tensor->name);
        last = tensor;
    }
    return OK;
}

static Status read_header(SafeTensors *file, int64_t *data_start)
{
    uint64_t length;
    if (file->map.size_bytes < PREFIX_BYTES)
        return fail(BAD_INPUT, "%s: %lld bytes are too few for a safetensors file", file->path,
                    (long long)file->map.size_bytes);
    memcpy(&length, file->map.bytes, sizeof length);
    if (length > (uint64_t)(file->map.size_bytes - PREFIX_BYTES) || length > HEADER_MAX_BYTES)
        return fail(BAD_INPUT,
                    "%s: header of %llu bytes in a file of %lld: damaged, or not a safetensors "
                    "file",
                    file->path, (unsigned long long)length, (long long)file->map.size_bytes);
    char where[PATH_BYTES + 16];
    snprintf(where, sizeof where, "%s: header", file->path);
    TRY(json_parse(&file->header, (const char *)file->map.bytes + PREFIX_BYTES, (int64_t)length,
                   where));
    if (!json_is_object(file->header))
        return fail(BAD_INPUT, "%s: the header is not a JSON object", file->path);
    *data_start = PREFIX_BYTES + (int64_t)length;
    return OK;
}

static Status read_tensors(SafeTensors *file, int64_t data_start)
{
    size_t n_entries = json_object_size(file->header);
    file->tensors = calloc(n_entries + 1, sizeof *file->tensors);
    if (file->tensors == NULL)
        return fail(FAILED, "%s: no memory for a list of %zu tensors", file->path, n_entries);
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        // The one key that is no tensor: free text, not used.
        if (strcmp(name, "__metadata__") == 0)
            continue;
        TRY(read_tensor(&file->tensors[file->n_tensors], name, entry, file, data_start));
        file->n_tensors++;
    }
    TRY(check_overlaps(file));
    qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, compare_name);
    return OK;
}

// The header is kept as long as the file: names and dtypes are borrowed from it.
Status safetensors_open(SafeTensors *out, const char *path)
{
    SafeTensors file = {.fd = -1};
    Status status;
    int64_t data_start;
    if (snprintf(file.path, sizeof file.path, "%s", path) >= PATH_BYTES)
        return fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
    TRY(file_kind_check(path));
    TRY(file_map(&file.map, path));
    TRY_GOTO(close_file, file_open(&file.fd, path));
    TRY_GOTO(close_file, read_header(&file, &data_start));
    TRY_GOTO(close_file, read_tensors(&file, data_start));
    *out = file;
    return OK;
close_file:
    safetensors_close(&file);
    return status;
}

void safetensors_close(SafeTensors *file)
{
    free(file->tensors);
    json_decref(file->header);
    if (file->fd >= 0)
        close(file->fd);
    file_unmap(&file->map);
    *file = (SafeTensors){.fd = -1};
}

Status safetensors_rename(SafeTensors *file, SafeTensorsRename rename, void *context)
{
    for (int i = 0; i < file->n_tensors; i++)
        TRY(rename(&file->tensors[i].name, context, file));
    qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, compare_name);
    for (int i = 1; i < file->n_tensors; i++)
        if (strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0)
            return fail(BAD_INPUT, "%s: two tensors are '%.200s' under different names", file->path,
                        file->tensors[i].name);
    return OK;
}

// Names are sorted after loading: bisection.
const TensorInfo *safetensors_find(const SafeTensors *file, const char *name)
{
    if (file->n_tensors == 0)
        return NULL;
    TensorInfo key = {.name = name};
    return bsearch(&key, file->tensors, (size_t)file->n_tensors, sizeof key, compare_name);
}

// Reads size_bytes from `offset` on. Returns 0, an errno, or -1 if the file ends before.
static int read_bytes(int fd, void *out, int64_t size_bytes, int64_t offset)
{
    for (int64_t done = 0; done < size_bytes;) {
        ssize_t n = pread(fd, (char *)out + done, (size_t)(size_bytes - done), offset + done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : -1;
        done += n;
    }
    return 0;
}

// Reads `count` numbers of a tensor from `offset` on. Errors as read_bytes().
// Numbers of other widths go through the thread's stack (128 KiB) on their way to float.
static int read_part(const SafeTensors *file, DType dtype, int64_t offset, int64_t count,
                     float *out)
{
    double buffer[PART_COUNT / 4]; // as many numbers of 16 bits as a part has
    const int64_t size = dtype_size_bytes(dtype), most = (int64_t)sizeof buffer / size;
    if (dtype == DTYPE_F32)
        return read_bytes(file->fd, out, count * size, offset);
    for (int64_t first = 0; first < count; first += most) {
        const int64_t n = count - first < most ? count - first : most;
        const int error = read_bytes(file->fd, buffer, n * size, offset + first * size);
        if (error != 0)
            return error;
        dtype_widen(out + first, buffer, dtype, n);
    }
    return 0;
}

// A file that changed is the user's input; an I/O error is the machine's.
static Status fail_read(const SafeTensors *file, const TensorInfo *tensor, int error)
{
    return fail(error < 0 ? BAD_INPUT : FAILED, "%s: tensor '%.200s' cannot be read: %s",
                file->path, tensor->name,
                error < 0 ? "the file has become shorter" : strerror(error));
}

// The tensor, if its shape is exactly the one wanted: a transposed or padded one would load without
// an error otherwise.
static Status find_of_dims(const TensorInfo **out, const SafeTensors *file, const char *name,
                           const int *dims, int n_dims)
{
    CHECK(n_dims >= 0 && n_dims <= SAFETENSORS_MAX_DIMS, "%d dims", n_dims);
    const TensorInfo *tensor = safetensors_find(file, name);
    if (tensor == NULL)
        return fail(BAD_INPUT, "%s: tensor '%.200s' is missing", file->path, name);
    int64_t wanted[SAFETENSORS_MAX_DIMS];
    bool is_same = tensor->n_dims == n_dims;
    for (int i = 0; i < n_dims; i++) {
        wanted[i] = dims[i];
        is_same = is_same && tensor->dims[i] == wanted[i];
    }
    if (!is_same) {
        char have[DIMS_TEXT_BYTES], want[DIMS_TEXT_BYTES];
        print_dims(have, tensor->dims, tensor->n_dims);
        print_dims(want, wanted, n_dims);
        return fail(BAD_INPUT, "%s: tensor '%.200s' has shape %s, expected is %s", file->path, name,
                    have, want);
    }
    *out = tensor;
    return OK;
}

Status safetensors_read_f32(const SafeTensors *file, const char *name, const int *dims, int n_dims,
                            float *out)
{
    const TensorInfo *tensor;
    TRY(find_of_dims(&tensor, file, name, dims, n_dims));
    DType dtype = tensor->dtype;
    if (!dtype_is_float(dtype))
        return fail(BAD_INPUT,
                    "%s: tensor '%.200s' has dtype %s, supported are F32, F16, BF16 and F64",
                    file->path, name, tensor->dtype_text);
    const int64_t size = dtype_size_bytes(dtype), count = tensor->size_bytes / size;
    const int64_t start = tensor->bytes - file->map.bytes;
    int error = 0;
    // The disk reads while parts are converted; the tensor that follows is often read next.
    posix_fadvise(file->fd, start,
                  tensor->size_bytes > AHEAD_BYTES ? tensor->size_bytes : AHEAD_BYTES,
                  POSIX_FADV_WILLNEED);
#pragma omp parallel for schedule(static) if (count > PART_COUNT)
    for (int64_t first = 0; first < count; first += PART_COUNT) {
        const int64_t left = count - first;
        const int own = read_part(file, dtype, start + first * size,
                                  left < PART_COUNT ? left : PART_COUNT, out + first);
        if (own != 0)
// Any of several errors will do: the message names the tensor.
#pragma omp atomic write
            error = own;
    }
    return error == 0 ? OK : fail_read(file, tensor, error);
}

// Reads the part of a tensor that starts at number `first`.
static Status read_part_of(const SafeTensors *file, const TensorInfo *tensor, int64_t first,
                           int64_t count, float *out)
{
    const int64_t place = tensor->bytes - file->map.bytes + first * dtype_size_bytes(tensor->dtype);
    const int error = read_part(file, tensor->dtype, place, count, out);
    return error == 0 ? OK : fail_read(file, tensor, error);
}

Status safetensors_are_equal(bool *out, const SafeTensors *file, const char *name,
                             const SafeTensors *other_file, const char *other_name)
{
    const TensorInfo *tensor = safetensors_find(file, name);
    const TensorInfo *other = safetensors_find(other_file, other_name);
    CHECK(tensor != NULL && other != NULL, "%s or %s is missing", name, other_name);
    int64_t count = 1;
    bool is_same = dtype_is_float(tensor->dtype) && dtype_is_float(other->dtype) &&
                   tensor->n_dims == other->n_dims;
    for (int i = 0; is_same && i < tensor->n_dims; i++) {
        is_same = tensor->dims[i] == other->dims[i];
        count *= tensor->dims[i];
    }
    for (int64_t first = 0; is_same && first < count; first += PART_COUNT) {
        float part[PART_COUNT], other_part[PART_COUNT]; // 256 KiB each
        const int64_t n = count - first < PART_COUNT ? count - first : PART_COUNT;
        TRY(read_part_of(file, tensor, first, n, part));
        TRY(read_part_of(other_file, other, first, n, other_part));
        is_same = memcmp(part, other_part, (size_t)n * sizeof *part) == 0;
    }
    *out = is_same;
    return OK;
}

Status safetensors_read_i32(const SafeTensors *file, const char *name, const int *dims, int n_dims,
                            int32_t *out)
{
    const TensorInfo *tensor;
    TRY(find_of_dims(&tensor, file, name, dims, n_dims));
    if (tensor->dtype != DTYPE_I32)
        return fail(BAD_INPUT, "%s: tensor '%.200s' has dtype %s, expected is I32", file->path,
                    name, tensor->dtype_text);
    const int error =
        read_bytes(file->fd, out, tensor->size_bytes, tensor->bytes - file->map.bytes);
    return error == 0 ? OK : fail_read(file, tensor, error);
}
