// Plain contiguous datasets of HDF5, without chunks or filters: a shard is written and read in the
// order of the file, at the disk's speed, and any number of ranks reads the parts it needs. What is
// damaged in it is found by the CRC-32 in the manifest, so HDF5's own checksums of data are not
// asked for.
#include "train/checkpoint/checkpoint_shard.h"

#include "base/hdf5_error.h"
#include "base/hdf5_file.h"
#include "base/temporary.h"
#include "train/parallel/watchdog.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const format_name = "mha2mla-checkpoint-shard";
enum { FORMAT_VERSION = 1 };

static const char *const dataset_names[] = {"parameters", "first_moment", "second_moment",
                                            "frozen_parameters"};
enum { PARAMETERS, FIRST_MOMENT, SECOND_MOMENT, FROZEN, N_DATASETS };

static const char ranges_name[] = "ranges", frozen_ranges_name[] = "frozen_ranges";

void checkpoint_shard_name(char out[CHECKPOINT_SHARD_NAME_BYTES], int rank)
{
    snprintf(out, CHECKPOINT_SHARD_NAME_BYTES, "shard-%04d.h5", rank);
}

Status checkpoint_shard_path(char out[PATH_BYTES], const char *dir, int rank)
{
    char name[CHECKPOINT_SHARD_NAME_BYTES];
    checkpoint_shard_name(name, rank);
    return file_join(out, dir, name);
}

// ---- writing -----------------------------------------------------------------------------------

// Writers return true or false and keep HDF5's reason before they close anything: the caller knows
// the path and makes the error's text. Integers are little-endian 64-bit in the file on every
// machine.
static bool write_int_attribute(hid_t file, const char *name, int value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool written = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT, &value) >= 0;
    if (!written)
        hdf5_keep_reason();
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Sclose(space);
    return written;
}

static bool write_format_attribute(hid_t file)
{
    hid_t space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(format_name));
    hid_t attribute = H5Acreate2(file, "format", type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool written = attribute >= 0 && H5Awrite(attribute, type, format_name) >= 0;
    if (!written)
        hdf5_keep_reason();
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Tclose(type);
    H5Sclose(space);
    return written;
}

// /ranges [n_buckets, 2]: first and count of this rank's share of every bucket, in floats of the
// flat vector. The datasets hold the shares one behind the other in this order.
static bool write_ranges(hid_t file, const char *name, const Partition *partition)
{
    const hsize_t dims[2] = {(hsize_t)partition->n_buckets, 2};
    int64_t *ranges = malloc((size_t)partition->n_buckets * 2 * sizeof *ranges);
    if (ranges == NULL)
        return false;
    for (int i = 0; i < partition->n_buckets; i++) {
        ranges[2 * i] = partition->buckets[i].own_first;
        ranges[2 * i + 1] = partition->buckets[i].own_count;
    }
    hid_t space = H5Screate_simple(2, dims, NULL);
    hid_t dataset =
        H5Dcreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool written = dataset >= 0 &&
                   H5Dwrite(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, ranges) >= 0;
    if (!written)
        hdf5_keep_reason();
    if (dataset >= 0)
        H5Dclose(dataset);
    H5Sclose(space);
    free(ranges);
    return written;
}

// Moves `count` floats between memory and the places first .. of a dataset. A HDF5 that is
// thread-safe has one lock for all of the library, free between two calls: the loop's thread, which
// reads tokens, waits for one bucket at most.
static bool transfer(hid_t dataset, int64_t first, int64_t count, float *floats, bool is_write)
{
    const hsize_t start = (hsize_t)first, length = (hsize_t)count;
    if (count == 0)
        return true;
    hid_t in_file = H5Dget_space(dataset), in_memory = H5Screate_simple(1, &length, NULL);
    H5Sselect_hyperslab(in_file, H5S_SELECT_SET, &start, NULL, &length, NULL);
    herr_t done = is_write
                      ? H5Dwrite(dataset, H5T_NATIVE_FLOAT, in_memory, in_file, H5P_DEFAULT, floats)
                      : H5Dread(dataset, H5T_NATIVE_FLOAT, in_memory, in_file, H5P_DEFAULT, floats);
    if (done < 0)
        hdf5_keep_reason();
    H5Sclose(in_memory);
    H5Sclose(in_file);
    return done >= 0;
}

static bool write_floats(hid_t file, const CheckpointShard *shard, int which)
{
    const Partition *partition = which == FROZEN ? shard->frozen : shard->partition;
    const hsize_t length = (hsize_t)partition->own_count;
    // The rank's own vectors have the datasets' layout already; only the parameters are gathered
    // from the flat vector.
    hid_t space = H5Screate_simple(1, &length, NULL);
    hid_t dataset = H5Dcreate2(file, dataset_names[which], H5T_IEEE_F32LE, space, H5P_DEFAULT,
                               H5P_DEFAULT, H5P_DEFAULT);
    bool written = dataset >= 0;
    for (int i = 0; written && i < partition->n_buckets; i++) {
        const Bucket *bucket = &partition->buckets[i];
        const float *from = which == FIRST_MOMENT    ? shard->m + bucket->moments_first
                            : which == SECOND_MOMENT ? shard->v + bucket->moments_first
                                                     : shard->params + bucket->own_first;
        // A heartbeat per bucket: a slow disk is not a rank that hangs.
        written = transfer(dataset, bucket->moments_first, bucket->own_count,
                           (float *)(uintptr_t)from, true);
        watchdog_heartbeat();
    }
    if (!written)
        hdf5_keep_reason();
    // Closing flushes: a disk that is full may say so only now.
    if (dataset >= 0 && H5Dclose(dataset) < 0) {
        hdf5_keep_reason();
        written = false;
    }
    H5Sclose(space);
    return written;
}

// Attributes first: they are small, and a file that ends early still says what it was.
static bool write_content(hid_t file, const CheckpointShard *shard)
{
    bool written = write_format_attribute(file) &&
                   write_int_attribute(file, "version", FORMAT_VERSION) &&
                   write_int_attribute(file, "step", shard->step) &&
                   write_int_attribute(file, "rank", shard->rank) &&
                   write_int_attribute(file, "n_ranks", shard->n_ranks) &&
                   write_ranges(file, ranges_name, shard->partition);
    for (int which = 0; written && which < FROZEN; which++)
        written = write_floats(file, shard, which);
    if (shard->frozen == NULL || shard->frozen->n_buckets == 0)
        return written;
    return written && write_ranges(file, frozen_ranges_name, shard->frozen) &&
           write_floats(file, shard, FROZEN);
}

// Crash windows: until the rename there is only NAME.tmp, which no reader opens; file_publish()
// syncs the file and its directory before it returns, so the manifest, written after all ranks have
// been here, never names a file that a power failure could take away.
Status checkpoint_shard_write(CheckpointFile *out, const char *dir, const CheckpointShard *shard)
{
    char path[PATH_BYTES], temporary[PATH_BYTES];
    TRY(checkpoint_shard_path(path, dir, shard->rank));
    TRY(temporary_make(temporary, path));
    hdf5_silence();
    hid_t file = hdf5_create(temporary, H5F_LIBVER_V18); // metadata with checksums
    if (file < 0) {
        unlink(temporary);
        return hdf5_fail(FAILED, path, "cannot be written");
    }
    Status status = write_content(file, shard) ? OK : hdf5_fail(FAILED, path, "write failed");
    if (H5Fclose(file) < 0 && status == OK)
        status = hdf5_fail(FAILED, path, "write failed");
    if (status != OK) {
        unlink(temporary);
        return status;
    }
    TRY(file_publish(temporary, path));
    // Read from the file and not taken from memory, so that it covers HDF5's own structures and
    // what the system made of the write.
    return checksum_crc32_file(&out->crc32, &out->size_bytes, path);
}

// ---- reading -----------------------------------------------------------------------------------

// The attributes repeat what the manifest says: a file of another checkpoint, or of another rank,
// may lie in this one's place with the right name.
static Status expect_int_attribute(hid_t file, const char *path, const char *name, int expected)
{
    int64_t value = 0;
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    bool is_read = attribute >= 0 && H5Aread(attribute, H5T_NATIVE_INT64, &value) >= 0;
    if (!is_read)
        hdf5_keep_reason();
    if (attribute >= 0)
        H5Aclose(attribute);
    if (!is_read)
        return hdf5_fail(BAD_INPUT, path, "not a shard of a checkpoint");
    if (value != expected)
        return fail(BAD_INPUT, "%s: %s is %lld, the manifest says %d", path, name, (long long)value,
                    expected);
    return OK;
}

// The file's own format version first: attributes of a later one may mean something else.
static Status expect_attributes(hid_t file, const char *path, const CheckpointShard *expected)
{
    TRY(expect_int_attribute(file, path, "version", FORMAT_VERSION));
    TRY(expect_int_attribute(file, path, "step", expected->step));
    TRY(expect_int_attribute(file, path, "rank", expected->rank));
    return expect_int_attribute(file, path, "n_ranks", expected->n_ranks);
}

// Ranges of the file; the caller frees them.
static Status read_ranges(int64_t **out, int *n_ranges, hid_t file, const char *path,
                          const char *name)
{
    Status status = OK;
    hsize_t dims[2] = {0};
    int64_t *ranges = NULL;
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    if (dataset < 0)
        return hdf5_fail(BAD_INPUT, path, "not a shard of a checkpoint");
    hid_t space = H5Dget_space(dataset);
    // The extents come from the file and may be anything: they are checked before memory is asked
    // for.
    if (H5Sget_simple_extent_ndims(space) != 2 ||
        H5Sget_simple_extent_dims(space, dims, NULL) != 2 || dims[1] != 2 || dims[0] > INT32_MAX)
        status = fail(BAD_INPUT, "%s: /%s is not a table of two columns", path, name);
    else if ((ranges = malloc((dims[0] + 1) * 2 * sizeof *ranges)) == NULL)
        status = fail(FAILED, "%s: no memory for %llu ranges", path, (unsigned long long)dims[0]);
    else if (H5Dread(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, ranges) < 0)
        status = hdf5_fail(BAD_INPUT, path, name);
    H5Sclose(space);
    H5Dclose(dataset);
    if (status != OK) {
        free(ranges);
        return status;
    }
    *out = ranges;
    *n_ranges = (int)dims[0];
    return OK;
}

// One file that is being read.
typedef struct Reading {
    hid_t file;
    hid_t datasets[N_DATASETS]; // < 0: not wanted
    const char *path;
    float *params, *m, *v;
    int64_t n_read;
} Reading;

// Reads what the range [first, first + count) of the flat vector, which begins at `place` in the
// file's datasets, has in common with this rank's share of the bucket.
static Status read_overlap(Reading *reading, const Bucket *bucket, int64_t first, int64_t count,
                           int64_t place, bool are_frozen)
{
    const int64_t own_end = bucket->own_first + bucket->own_count;
    const int64_t begin = first > bucket->own_first ? first : bucket->own_first;
    const int64_t end = first + count < own_end ? first + count : own_end;
    if (begin >= end)
        return OK;
    const int64_t moments = bucket->moments_first + begin - bucket->own_first;
    float *to[N_DATASETS] = {NULL};
    to[are_frozen ? FROZEN : PARAMETERS] = reading->params + begin;
    if (reading->m != NULL && !are_frozen) {
        to[FIRST_MOMENT] = reading->m + moments;
        to[SECOND_MOMENT] = reading->v + moments;
    }
    for (int which = 0; which < N_DATASETS; which++)
        if (to[which] != NULL && !transfer(reading->datasets[which], place + begin - first,
                                           end - begin, to[which], false))
            return hdf5_fail(BAD_INPUT, reading->path, dataset_names[which]);
    reading->n_read += end - begin;
    watchdog_heartbeat();
    return OK;
}

// Goes through the ranges of a file and the buckets of a partition side by side, as both ascend in
// the flat vector; `place` counts along the file's datasets. Files of few ranks have ranges that
// reach over several of this rank's shares, those of many ranks several ranges within one.
static Status read_shares(Reading *reading, const Partition *partition, const int64_t *ranges,
                          int n_ranges, bool are_frozen)
{
    const int64_t total = partition->n_params;
    int64_t place = 0;
    int i = 0;
    for (int r = 0; r < n_ranges; r++) {
        const int64_t first = ranges[2 * r], count = ranges[2 * r + 1];
        if (first < 0 || first > total || count < 0 || count > total - first)
            return fail(BAD_INPUT, "%s: range %d of /%s is not one of %lld parameters",
                        reading->path, r, are_frozen ? frozen_ranges_name : ranges_name,
                        (long long)total);
        while (i < partition->n_buckets &&
               partition->buckets[i].first + partition->buckets[i].count <= first)
            i++;
        for (int b = i; b < partition->n_buckets && partition->buckets[b].first < first + count;
             b++)
            TRY(read_overlap(reading, &partition->buckets[b], first, count, place, are_frozen));
        place += count;
    }
    return OK;
}

// Parameters always, moments only where they are wanted: an export leaves two thirds of the file
// unread.
static Status open_datasets(Reading *reading, hid_t file)
{
    for (int which = 0; which < N_DATASETS; which++)
        reading->datasets[which] = -1;
    for (int which = 0; which < N_DATASETS; which++) {
        const bool is_moment = which == FIRST_MOMENT || which == SECOND_MOMENT;
        if ((is_moment && reading->m == NULL) ||
            (which == FROZEN && H5Lexists(file, frozen_ranges_name, H5P_DEFAULT) <= 0))
            continue;
        reading->datasets[which] = H5Dopen2(file, dataset_names[which], H5P_DEFAULT);
        if (reading->datasets[which] < 0)
            return hdf5_fail(BAD_INPUT, reading->path, dataset_names[which]);
    }
    return OK;
}

// The shares of tensors that are trained, or of those that are not.
static Status read_kind(Reading *reading, const Partition *partition, bool are_frozen)
{
    int64_t *ranges = NULL;
    int n_ranges = 0;
    TRY(read_ranges(&ranges, &n_ranges, reading->file, reading->path,
                    are_frozen ? frozen_ranges_name : ranges_name));
    const Status status = read_shares(reading, partition, ranges, n_ranges, are_frozen);
    free(ranges);
    return status;
}

static void close_reading(Reading *reading)
{
    for (int which = 0; which < N_DATASETS; which++)
        if (reading->datasets[which] >= 0)
            H5Dclose(reading->datasets[which]);
    H5Fclose(reading->file);
}

Status checkpoint_shard_read(int64_t *n_read, const char *path, const CheckpointShard *expected,
                             float *params, float *m, float *v)
{
    Reading reading = {.path = path, .params = params, .m = m, .v = v};
    Status status;
    hdf5_silence();
    TRY(hdf5_open(&reading.file, path));
    TRY_GOTO(close, open_datasets(&reading, reading.file));
    TRY_GOTO(close, expect_attributes(reading.file, path, expected));
    TRY_GOTO(close, read_kind(&reading, expected->partition, false));
    if (reading.datasets[FROZEN] >= 0)
        status = read_kind(&reading, expected->partition, true);
close:
    close_reading(&reading);
    *n_read += reading.n_read;
    return status;
}
