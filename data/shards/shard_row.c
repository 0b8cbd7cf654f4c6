// A stored chunk was made by three filters one after another, undone here from the last to the
// first:
//
//     values -shuffle-> byte planes -deflate-> zlib stream -fletcher32-> stream + 4 bytes
//
// Shuffle puts the low bytes of all values first, then the next ones: ids are small, so the planes
// of high bytes compress to nearly nothing. It is not undone as a whole: value_at() picks the bytes
// of the values that are asked for.
#include "data/shards/shard_row.h"

#include "base/hdf5_error.h"
#include "data/shards/shard_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

// In HDF5's filter mask bit i says that filter i of the pipeline was left out; deflate is 1.
enum { CHECKSUM_BYTES = 4, DEFLATE_SKIPPED = 1 << 1 };

// The filters decode() undoes, in this order and no others.
// Chunks are read as they are stored, so HDF5's own filters never run: shuffle, deflate and
// checksum are undone here. A file with another pipeline would be misread.
static bool filters_are_ours(hid_t plist)
{
    static const H5Z_filter_t ours[] = {H5Z_FILTER_SHUFFLE, H5Z_FILTER_DEFLATE,
                                        H5Z_FILTER_FLETCHER32};
    const int n = (int)(sizeof ours / sizeof ours[0]);
    bool same = H5Pget_nfilters(plist) == n;
    for (int i = 0; i < n && same; i++) {
        unsigned flags, config;
        size_t n_values = 0;
        same = H5Pget_filter2(plist, (unsigned)i, &flags, &n_values, NULL, 0, NULL, &config) ==
               ours[i];
    }
    return same;
}

// Length, type, chunks and filters of the data set; false if one is not as it must be.
static bool inspect(ShardRow *row)
{
    const hid_t wanted = row->value_bytes == 2   ? H5T_STD_U16LE
                         : row->value_bytes == 4 ? H5T_STD_U32LE
                                                 : H5T_STD_U64LE;
    hid_t type = H5Dget_type(row->dataset), space = H5Dget_space(row->dataset);
    hid_t plist = H5Dget_create_plist(row->dataset);
    hsize_t length = 0, chunk = 0;
    bool right = H5Tequal(type, wanted) > 0 && H5Sget_simple_extent_ndims(space) == 1 &&
                 H5Sget_simple_extent_dims(space, &length, NULL) == 1 && length <= INT64_MAX / 8 &&
                 H5Pget_layout(plist) == H5D_CHUNKED && H5Pget_chunk(plist, 1, &chunk) == 1 &&
                 chunk >= 1 && chunk <= SHARD_CHUNK_MAX && filters_are_ours(plist);
    // HDF5 ignores negative handles apart from an error on its stack, which hdf5_silence() has
    // muted.
    H5Pclose(plist);
    H5Sclose(space);
    H5Tclose(type);
    row->length = (int64_t)length;
    row->chunk_length = (int64_t)chunk;
    return right;
}

// The row owns the data set and two buffers, of a stored and of a decoded chunk.
Status shard_row_open(ShardRow *out, hid_t file, const char *path, const char *name,
                      int value_bytes)
{
    ShardRow row = {.path = path, .name = name, .value_bytes = value_bytes, .loaded = -1};
    Status status;
    row.dataset = H5Dopen2(file, name, H5P_DEFAULT);
    if (row.dataset < 0) {
        char what[128];
        snprintf(what, sizeof what, "data set /%s cannot be opened", name);
        return hdf5_fail(BAD_INPUT, path, what);
    }
    if (!inspect(&row)) {
        status = fail(BAD_INPUT,
                      "%s: /%s is not one row of little-endian uint%d, in chunks of at most %d, "
                      "with shuffle, deflate and fletcher32 in this order",
                      path, name, 8 * value_bytes, SHARD_CHUNK_MAX);
        goto close;
    }
    // A damaged header may claim any length. Every chunk has at least its checksum in the file.
    hsize_t file_bytes = 0;
    if (H5Fget_filesize(file, &file_bytes) < 0 ||
        shard_row_n_chunks(&row) > (int64_t)(file_bytes / CHECKSUM_BYTES)) {
        status = fail(BAD_INPUT, "%s: /%s has %lld values, too many for a file of %llu bytes", path,
                      name, (long long)row.length, (unsigned long long)file_bytes);
        goto close;
    }
    const int64_t chunk_bytes = row.chunk_length * value_bytes;
    // HDF5 stores a chunk that deflate would enlarge as it is, so the bound is never exceeded.
    row.capacity_bytes = (int64_t)compressBound((uLong)chunk_bytes) + CHECKSUM_BYTES;
    row.stored = malloc((size_t)row.capacity_bytes);
    row.planes = malloc((size_t)chunk_bytes);
    if (row.stored == NULL || row.planes == NULL) {
        status = fail(FAILED, "%s: out of memory for chunks of %lld bytes", path,
                      (long long)chunk_bytes);
        goto close;
    }
    *out = row;
    return OK;
close:
    shard_row_close(&row);
    return status;
}

// HDF5's variant of Fletcher's checksum: 16-bit big-endian words, sums modulo 65535.
static uint32_t fletcher32(const uint8_t *bytes, int64_t size)
{
    enum { MAX_WORDS = 360 }; // before a 32-bit sum of sums can overflow
    uint32_t sum = 0, sums = 0;
    for (int64_t at = 0; at < size;) {
        // The sums are folded after each stretch; 65535 = 2^16 - 1, so a fold adds high and low
        // half.
        const int64_t end = size - at > 2 * MAX_WORDS ? at + 2 * MAX_WORDS : size;
        for (; at < end; at += 2) {
            sum += (uint32_t)bytes[at] << 8 | (at + 1 < size ? bytes[at + 1] : 0u);
            sums += sum;
        }
        sum = (sum & 0xffff) + (sum >> 16);
        sums = (sums & 0xffff) + (sums >> 16);
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sums = (sums & 0xffff) + (sums >> 16);
    return sums << 16 | sum;
}

int64_t shard_row_n_chunks(const ShardRow *row)
{
    return (row->length + row->chunk_length - 1) / row->chunk_length;
}

// In tokens (or documents) and not only in chunks, so that the user can tell what is lost.
static Status fail_damaged(const ShardRow *row, int64_t chunk, const char *why)
{
    const int64_t first = chunk * row->chunk_length, end = first + row->chunk_length;
    return fail(BAD_INPUT,
                "%s: /%s is damaged from %lld to %lld: %s (chunk %lld of 0..%lld); make the shard "
                "again",
                row->path, row->name, (long long)first,
                (long long)(end < row->length ? end : row->length) - 1, why, (long long)chunk,
                (long long)shard_row_n_chunks(row) - 1);
}

// The checksum is compared before zlib sees the bytes.
static Status decode(ShardRow *row, int64_t chunk, int64_t size, uint32_t skipped)
{
    const int64_t chunk_bytes = row->chunk_length * row->value_bytes;
    const int64_t body = size - CHECKSUM_BYTES;
    const uint8_t *end = row->stored + body;
    const uint32_t checksum =
        (uint32_t)end[0] | (uint32_t)end[1] << 8 | (uint32_t)end[2] << 16 | (uint32_t)end[3] << 24;
    // HDF5 leaves deflate out where it would make a chunk larger, and marks that.
    if (skipped != 0 && skipped != DEFLATE_SKIPPED)
        return fail_damaged(row, chunk, "filters are left out");
    if (fletcher32(row->stored, body) != checksum)
        return fail_damaged(row, chunk, "its checksum differs");
    if (skipped == DEFLATE_SKIPPED) {
        if (body != chunk_bytes)
            return fail_damaged(row, chunk, "its size differs");
        memcpy(row->planes, row->stored, (size_t)chunk_bytes);
        return OK;
    }
    uLongf inflated = (uLongf)chunk_bytes;
    // The output is bounded by the chunk's size, so a crafted stream cannot write beyond the
    // planes.
    if (uncompress(row->planes, &inflated, row->stored, (uLong)body) != Z_OK ||
        inflated != (uLongf)chunk_bytes)
        return fail_damaged(row, chunk, "it does not inflate to its size");
    return OK;
}

// Called for every value: neighbours lie in the chunk that is loaded already.
static Status load_chunk(ShardRow *row, int64_t chunk)
{
    if (row->loaded == chunk)
        return OK;
    row->loaded = -1; // the planes are overwritten even if reading fails
    const hsize_t first = (hsize_t)(chunk * row->chunk_length);
    hsize_t size = 0;
    uint32_t skipped = 0;
    if (H5Dget_chunk_storage_size(row->dataset, &first, &size) < 0 || size <= CHECKSUM_BYTES ||
        size > (hsize_t)row->capacity_bytes)
        return fail_damaged(row, chunk, "it is missing or of an impossible size");
    if (H5Dread_chunk(row->dataset, H5P_DEFAULT, &first, &skipped, row->stored) < 0) {
        char what[128];
        snprintf(what, sizeof what, "/%s cannot be read from %llu on (chunk %lld)", row->name,
                 (unsigned long long)first, (long long)chunk);
        return hdf5_fail(BAD_INPUT, row->path, what);
    }
    TRY(decode(row, chunk, (int64_t)size, skipped));
    row->loaded = chunk;
    return OK;
}

// Byte b of value i is at [b, i] of the planes [value_bytes, chunk_length].
static uint64_t value_at(const ShardRow *row, int64_t i)
{
    uint64_t value = 0;
    for (int b = 0; b < row->value_bytes; b++)
        value |= (uint64_t)row->planes[b * row->chunk_length + i] << (8 * b);
    return value;
}

// Value `at` of the row. Larger ones than `max` become `max` rather than wrap: the caller's check
// against the vocabulary or the number of tokens then refuses them.
static inline Status read_value(uint64_t *out, ShardRow *row, int64_t at, uint64_t max)
{
    TRY(load_chunk(row, at / row->chunk_length));
    const uint64_t value = value_at(row, at % row->chunk_length);
    *out = value > max ? max : value;
    return OK;
}

Status shard_row_read32(ShardRow *row, int64_t first, int64_t count, int32_t *out)
{
    for (int64_t i = 0; i < count; i++) {
        uint64_t value;
        TRY(read_value(&value, row, first + i, INT32_MAX));
        out[i] = (int32_t)value;
    }
    return OK;
}

Status shard_row_read64(ShardRow *row, int64_t first, int64_t count, int64_t *out)
{
    for (int64_t i = 0; i < count; i++) {
        uint64_t value;
        TRY(read_value(&value, row, first + i, INT64_MAX));
        out[i] = (int64_t)value;
    }
    return OK;
}

void shard_row_close(ShardRow *row)
{
    if (row->dataset > 0)
        H5Dclose(row->dataset);
    free(row->stored);
    free(row->planes);
    *row = (ShardRow){0};
}
