// One data set of a token shard: a row of unsigned integers in compressed, checksummed chunks.
//
// HDF5 1.10 trusts the index of its chunks, which has no checksum of its own: a flipped bit there
// makes it skip a filter and read behind its buffer, or hand out the fill value. So the chunks are
// fetched raw and undone here, where every size and the fletcher32 checksum are checked.
//
//     ShardRow row;
//     TRY(shard_row_open(&row, file, path, "tokens", 2));
//     TRY(shard_row_read32(&row, first, count, ids));
//     shard_row_close(&row);
//
// Holds one inflated chunk; one thread at a time. Errors are BAD_INPUT naming file and data set.
#ifndef MHA2MLA_DATA_SHARDS_SHARD_ROW_H
#define MHA2MLA_DATA_SHARDS_SHARD_ROW_H

#include "base/status.h"

#include <hdf5.h>
#include <stdint.h>

typedef struct ShardRow {
    const char *path; // borrowed: the file
    const char *name; // borrowed: the data set
    hid_t dataset;    // owned; 0 while closed
    int value_bytes;  // 2, 4 or 8
    int64_t length;
    int64_t chunk_length;
    int64_t loaded;         // the chunk held in planes; -1: none
    uint8_t *stored;        // owned: a chunk as it is in the file
    int64_t capacity_bytes; // of stored
    uint8_t *planes; // owned [value_bytes, chunk_length]: byte b of every value, then byte b + 1
} ShardRow;

// Opens /name, which must be one row of unsigned little-endian integers of value_bytes, chunked,
// with the filters shuffle, deflate, fletcher32 in this order.
Status shard_row_open(ShardRow *out, hid_t file, const char *path, const char *name,
                      int value_bytes);

// Reads values first .. first + count - 1, which must be there, into out [count]. Values above the
// type's largest become that largest one.
Status shard_row_read32(ShardRow *row, int64_t first, int64_t count, int32_t *out);
Status shard_row_read64(ShardRow *row, int64_t first, int64_t count, int64_t *out);

int64_t shard_row_n_chunks(const ShardRow *row);

void shard_row_close(ShardRow *row); // a zeroed row is allowed

#endif
