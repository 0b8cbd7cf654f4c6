// Identifies a model directory by its weights without reading all of them: name, dtype, shape and a
// few kilobytes of every tensor. Fine-tuning changes every tensor somewhere, and with float weights
// practically everywhere, so three pages of each tell two models of one architecture apart at the
// cost of thousands of reads instead of gigabytes.
#define _GNU_SOURCE // pread
#include "model/hf/hf_fingerprint.h"

#include "base/checksum.h"
#include "model/hf/hf_weights.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Pieces of a page at the beginning, in the middle and at the end of a tensor.
enum { N_PIECES = 3, PIECE_BYTES = 4096, CONTENT_DIGITS = 16 };

typedef struct NamedTensor {
    const SafeTensors *file;  // borrowed
    const TensorInfo *tensor; // borrowed
} NamedTensor;

// By name, since the same weights may be cut into files in another way or order.
static int compare_names(const void *a, const void *b)
{
    const NamedTensor *left = a, *right = b;
    return strcmp(left->tensor->name, right->tensor->name);
}

// pread() rather than the map: a file that became shorter is an error then, not a signal.
static Status read_piece(unsigned char *out, const NamedTensor *from, int64_t offset, int64_t bytes)
{
    const int64_t begin = from->tensor->bytes - from->file->map.bytes;
    const ssize_t n = pread(from->file->fd, out, (size_t)bytes, begin + offset);
    if (n == bytes)
        return OK;
    return fail(BAD_INPUT, "%s: tensor '%s' cannot be read: %s", from->file->path,
                from->tensor->name, n < 0 ? strerror(errno) : "the file is cut off");
}

// Checksum of the whole tensor if it is small, else of its pieces.
static Status sum_content(char out[SHA256_HEX_BYTES], const NamedTensor *from)
{
    unsigned char bytes[N_PIECES * PIECE_BYTES];
    const int64_t size = from->tensor->size_bytes;
    if (size <= (int64_t)sizeof bytes) {
        TRY(read_piece(bytes, from, 0, size));
        return checksum_sha256_bytes(out, bytes, size);
    }
    // Offsets 0, half and the end less a page.
    for (int i = 0; i < N_PIECES; i++)
        TRY(read_piece(bytes + i * PIECE_BYTES, from, (size - PIECE_BYTES) / (N_PIECES - 1) * i,
                       PIECE_BYTES));
    return checksum_sha256_bytes(out, bytes, sizeof bytes);
}

// "F32 [49152, 576] 0f3a..."
static Status add_tensor(json_t *tensors, const NamedTensor *from)
{
    char text[256], sum[SHA256_HEX_BYTES];
    const TensorInfo *tensor = from->tensor;
    TRY(sum_content(sum, from));
    int used = snprintf(text, sizeof text, "%.16s [", tensor->dtype_text);
    for (int d = 0; d < tensor->n_dims; d++)
        used += snprintf(text + used, sizeof text - (size_t)used, "%s%lld", d > 0 ? ", " : "",
                         (long long)tensor->dims[d]);
    snprintf(text + used, sizeof text - (size_t)used, "] %.*s", CONTENT_DIGITS, sum);
    return json_object_set_new(tensors, tensor->name, json_string(text)) == 0
               ? OK
               : fail(FAILED, "%s: no memory to describe its tensors", from->file->path);
}

static Status describe_tensors(json_t *tensors, const HfWeights *weights)
{
    int n = 0, at = 0;
    for (int f = 0; f < weights->n_files; f++)
        n += weights->files[f].n_tensors;
    NamedTensor *all = calloc((size_t)n + 1, sizeof *all);
    Status status = OK;
    if (all == NULL)
        return fail(FAILED, "%s: no memory for %d tensors", weights->path, n);
    for (int f = 0; f < weights->n_files; f++)
        for (int i = 0; i < weights->files[f].n_tensors; i++)
            all[at++] = (NamedTensor){&weights->files[f], &weights->files[f].tensors[i]};
    qsort(all, (size_t)n, sizeof *all, compare_names);
    for (int i = 0; i < n; i++)
        TRY_GOTO(free_list, add_tensor(tensors, &all[i]));
free_list:
    free(all);
    return status;
}

Status hf_fingerprint(json_t **out, const char *dir)
{
    HfWeights weights;
    Status status;
    TRY(hf_weights_open(&weights, dir));
    json_t *tensors = json_object();
    TRY_GOTO(release_tensors, describe_tensors(tensors, &weights));
    hf_weights_close(&weights);
    *out = tensors;
    return OK;
release_tensors:
    json_decref(tensors);
    hf_weights_close(&weights);
    return status;
}
