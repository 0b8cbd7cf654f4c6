#include "model/paper/torch_file.h"

#include "base/file_kind.h"
#include "model/kernels/dtype.h"
#include "model/paper/torch_pickle.h"
#include "model/paper/zip_archive.h"

#include <stdlib.h>
#include <string.h>

enum { PREFIX_BYTES = 256 };

typedef struct TypeDesc {
    const char *storage; // PyTorch's class
    int size_bytes;
    DType dtype; // of floats
} TypeDesc;

static const TypeDesc types[] = {
    [TORCH_U8] = {"ByteStorage", 1, DTYPE_OTHER},
    [TORCH_I64] = {"LongStorage", 8, DTYPE_OTHER},
    [TORCH_F32] = {"FloatStorage", 4, DTYPE_F32},
    [TORCH_F16] = {"HalfStorage", 2, DTYPE_F16},
    [TORCH_BF16] = {"BFloat16Storage", 2, DTYPE_BF16},
    [TORCH_F64] = {"DoubleStorage", 8, DTYPE_F64},
};
enum { N_TYPES = sizeof types / sizeof types[0] };

// "archive/" of the one "archive/data.pkl": the name of the archive's folder is the writer's
// choice.
static Status find_prefix(char out[PREFIX_BYTES], const ZipArchive *archive)
{
    static const char end[] = "/data.pkl";
    const int end_bytes = sizeof end - 1;
    int64_t offset = 0;
    for (ZipEntry entry; zip_archive_next(&entry, archive, &offset);) {
        const int folder_bytes = entry.name_bytes - end_bytes;
        bool is_plain = folder_bytes > 0 && folder_bytes < PREFIX_BYTES;
        for (int i = 0; is_plain && i < folder_bytes; i++)
            is_plain = entry.name[i] >= ' ' && entry.name[i] < 0x7f;
        if (!is_plain || memcmp(entry.name + folder_bytes, end, (size_t)end_bytes) != 0)
            continue;
        snprintf(out, PREFIX_BYTES, "%.*s", folder_bytes, entry.name);
        return OK;
    }
    return fail(BAD_INPUT, "%s: a zip archive without data.pkl, so not of torch.save()",
                archive->path);
}

static Status find_in_folder(ZipEntry *out, const ZipArchive *archive, const char *folder,
                             const char *name)
{
    char path[PREFIX_BYTES + TORCH_TEXT_BYTES + 8];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return zip_archive_find(out, archive, path);
}

static Status read_pickle(TorchPickle *out, const ZipArchive *archive, const char *folder)
{
    ZipEntry entry;
    TRY(find_in_folder(&entry, archive, folder, "data.pkl"));
    if (torch_pickle_read(out, entry.bytes, entry.size_bytes))
        return OK;
    const bool is_dict = torch_pickle_is_dict(entry.bytes, entry.size_bytes);
    return fail(BAD_INPUT,
                "%s: holds %s, expected is one tensor of three dims; save that alone by "
                "torch.save(tensor, FILE)",
                archive->path, is_dict ? "a dict" : "something else");
}

static Status find_type(TorchType *out, const TorchPickle *tensor, const char *path)
{
    const char *name = strncmp(tensor->storage, "torch ", 6) == 0 ? tensor->storage + 6 : "";
    for (int i = 0; i < N_TYPES; i++) {
        if (strcmp(types[i].storage, name) == 0) {
            *out = (TorchType)i;
            return OK;
        }
    }
    return fail(BAD_INPUT,
                "%s: a tensor of %s, supported are those of Byte, Long, Float, Half, BFloat16 and "
                "Double",
                path, tensor->storage);
}

// The numbers of the tensor lie within its storage, one row after another.
static Status check_dims(int64_t *count, const TorchPickle *tensor, const char *path)
{
    const int64_t *dims = tensor->dims, *strides = tensor->strides;
    int64_t rows;
    if (dims[0] < 1 || dims[1] < 1 || dims[2] < 1 ||
        __builtin_mul_overflow(dims[1], dims[2], &rows) ||
        __builtin_mul_overflow(dims[0], rows, count) || *count > INT32_MAX)
        return fail(BAD_INPUT, "%s: a tensor of [%lld, %lld, %lld] is none of ranks or scores",
                    path, (long long)dims[0], (long long)dims[1], (long long)dims[2]);
    if (strides[2] != 1 || strides[1] != dims[2] || strides[0] != rows)
        return fail(BAD_INPUT,
                    "%s: the tensor's numbers are not in their order; save tensor.contiguous()",
                    path);
    if (tensor->offset < 0 || tensor->n_stored < *count ||
        tensor->offset > tensor->n_stored - *count)
        return fail(BAD_INPUT, "%s: a tensor of %lld numbers in a storage of %lld; it is damaged",
                    path, (long long)*count, (long long)tensor->n_stored);
    return OK;
}

static Status check_byte_order(const ZipArchive *archive, const char *folder)
{
    ZipEntry entry;
    if (find_in_folder(&entry, archive, folder, "byteorder") != OK)
        return OK; // of an older PyTorch, which wrote no other
    return entry.size_bytes == 6 && memcmp(entry.bytes, "little", 6) == 0
               ? OK
               : fail(BAD_INPUT, "%s: written on a big-endian machine; not supported",
                      archive->path);
}

static Status read_archive(TorchTensor *out, const char *path)
{
    char folder[PREFIX_BYTES], name[TORCH_TEXT_BYTES + 8];
    ZipArchive archive;
    ZipEntry entry;
    TorchPickle tensor;
    TRY(zip_archive_open(&archive, out->map.bytes, out->map.size_bytes, path));
    TRY(find_prefix(folder, &archive));
    TRY(check_byte_order(&archive, folder));
    TRY(read_pickle(&tensor, &archive, folder));
    TRY(find_type(&out->type, &tensor, path));
    TRY(check_dims(&out->count, &tensor, path));
    snprintf(name, sizeof name, "data/%s", tensor.key);
    TRY(find_in_folder(&entry, &archive, folder, name));
    const int size = types[out->type].size_bytes;
    if (entry.size_bytes / size < tensor.n_stored)
        return fail(BAD_INPUT, "%s: entry '%s' has %lld bytes, too few for %lld numbers", path,
                    name, (long long)entry.size_bytes, (long long)tensor.n_stored);
    memcpy(out->dims, tensor.dims, sizeof out->dims);
    out->values = entry.bytes + tensor.offset * size;
    return OK;
}

Status torch_file_open(TorchTensor *out, const char *path)
{
    TorchTensor tensor = {.count = 0};
    Status status;
    TRY(file_map(&tensor.map, path));
    const int64_t size_bytes = tensor.map.size_bytes; // of an empty file, which has no bytes, 0
    const bool is_zip = size_bytes >= 4 && memcmp(tensor.map.bytes, "PK\3\4", 4) == 0;
    const char *kind =
        is_zip || size_bytes == 0 ? NULL : file_kind_of_bytes(tensor.map.bytes, size_bytes);
    if (kind != NULL) {
        status = fail(BAD_INPUT, "%s: is %s", path, kind);
        goto unmap;
    }
    TRY_GOTO(unmap, read_archive(&tensor, path));
    *out = tensor;
    return OK;
unmap:
    file_unmap(&tensor.map);
    return status;
}

void torch_file_close(TorchTensor *tensor)
{
    file_unmap(&tensor->map);
}

bool torch_file_is_float(const TorchTensor *tensor)
{
    return types[tensor->type].dtype != DTYPE_OTHER;
}

double torch_file_value(const TorchTensor *tensor, int64_t i)
{
    const TypeDesc *type = &types[tensor->type];
    const unsigned char *from = tensor->values + i * type->size_bytes;
    int64_t whole;
    double real;
    float narrow;
    switch (tensor->type) {
    case TORCH_U8:
        return *from;
    case TORCH_I64:
        memcpy(&whole, from, sizeof whole);
        return (double)whole;
    case TORCH_F64:
        memcpy(&real, from, sizeof real);
        return real;
    case TORCH_F32:
    case TORCH_F16:
    case TORCH_BF16:
        break;
    }
    uint16_t bits[2]; // aligned, as many as the number has
    memcpy(bits, from, (size_t)type->size_bytes);
    dtype_widen(&narrow, bits, type->dtype, 1);
    return (double)narrow;
}
