// hdf5_fail() comes before anything is closed: every later call of HDF5 forgets the reason.
#include "model/convert/scores_hdf5.h"

#include "base/hdf5_error.h"

#include <stdio.h>

Status scores_write_attribute(hid_t group, const char *path, const char *name, int64_t value)
{
    Status status = OK;
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(group, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, H5T_NATIVE_INT64, &value) < 0)
        status = hdf5_fail(FAILED, path, "write failed");
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Sclose(space);
    return status;
}

// Any integer type is accepted, since h5py writes others than ours.
Status scores_read_attribute(int64_t *out, hid_t group, const char *path, const char *name)
{
    hid_t attribute = H5Aopen(group, name, H5P_DEFAULT);
    if (attribute < 0)
        return hdf5_fail(BAD_INPUT, path, "not a file of RoPE scores (mha2mla score makes them)");
    hid_t space = H5Aget_space(attribute), type = H5Aget_type(attribute);
    Status status = OK;
    if (H5Sget_simple_extent_npoints(space) != 1 || H5Tget_class(type) != H5T_INTEGER)
        status = fail(BAD_INPUT, "%s: attribute %s is not one whole number", path, name);
    else if (H5Aread(attribute, H5T_NATIVE_INT64, out) < 0)
        status = hdf5_fail(BAD_INPUT, path, name);
    H5Tclose(type);
    H5Sclose(space);
    H5Aclose(attribute);
    return status;
}

hid_t scores_make_group(hid_t parent, const char *name)
{
    hid_t creation = H5Pcreate(H5P_GROUP_CREATE), group = H5I_INVALID_HID;
    if (H5Pset_obj_track_times(creation, false) >= 0)
        group = H5Gcreate2(parent, name, H5P_DEFAULT, creation, H5P_DEFAULT);
    if (group < 0)
        hdf5_keep_reason();
    H5Pclose(creation);
    return group;
}

// In one chunk where it is not too large, since chunks have checksums: HDF5 then notices damage in
// reading. The last dimensions fill a chunk first.
static Status write_array(hid_t group, const char *path, const char *name, const void *values,
                          const ScoresDims *dims, hid_t file_type, hid_t memory_type)
{
    hsize_t sizes[SCORES_MAX_DIMS], chunk[SCORES_MAX_DIMS], room = SCORES_MAX_CHUNK;
    Status status = OK;
    for (int i = dims->n - 1; i >= 0; i--) {
        sizes[i] = (hsize_t)dims->dims[i];
        chunk[i] = sizes[i] < room ? sizes[i] : room;
        room /= chunk[i];
    }
    hid_t space = H5Screate_simple(dims->n, sizes, NULL), creation = H5Pcreate(H5P_DATASET_CREATE);
    hid_t dataset = H5I_INVALID_HID;
    if (H5Pset_obj_track_times(creation, false) >= 0 &&
        H5Pset_chunk(creation, dims->n, chunk) >= 0 && H5Pset_fletcher32(creation) >= 0)
        dataset = H5Dcreate2(group, name, file_type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    if (dataset < 0 || H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        status = hdf5_fail(FAILED, path, "write failed");
    if (dataset >= 0)
        H5Dclose(dataset);
    H5Pclose(creation);
    H5Sclose(space);
    return status;
}

static bool has_dims(hid_t space, const ScoresDims *dims)
{
    hsize_t got[SCORES_MAX_DIMS] = {0};
    if (H5Sget_simple_extent_ndims(space) != dims->n ||
        H5Sget_simple_extent_dims(space, got, NULL) != dims->n)
        return false;
    for (int i = 0; i < dims->n; i++)
        if (got[i] != (hsize_t)dims->dims[i])
            return false;
    return true;
}

static void describe(char *out, size_t out_bytes, const ScoresDims *dims)
{
    size_t used = 0;
    for (int i = 0; i < dims->n && used < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%lld", i > 0 ? " x " : "",
                                 (long long)dims->dims[i]);
}

// Shape and class are checked before the read, so that HDF5 never writes beyond `out`.
static Status read_array(void *out, hid_t group, const char *path, const char *name,
                         const ScoresDims *dims, H5T_class_t class, hid_t memory_type)
{
    hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT);
    if (dataset < 0)
        return hdf5_fail(BAD_INPUT, path, "not a file of RoPE scores (mha2mla score makes them)");
    hid_t space = H5Dget_space(dataset), type = H5Dget_type(dataset);
    Status status = OK;
    if (!has_dims(space, dims) || H5Tget_class(type) != class) {
        char text[96];
        describe(text, sizeof text, dims);
        status = fail(BAD_INPUT, "%s: dataset %s is not %s %s numbers", path, name, text,
                      class == H5T_FLOAT ? "floating-point" : "whole");
    } else if (H5Dread(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0)
        status = hdf5_fail(BAD_INPUT, path, name);
    H5Tclose(type);
    H5Sclose(space);
    H5Dclose(dataset);
    return status;
}

Status scores_write_doubles(hid_t group, const char *path, const char *name, const double *values,
                            const ScoresDims *dims)
{
    return write_array(group, path, name, values, dims, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE);
}

Status scores_read_doubles(double *out, hid_t group, const char *path, const char *name,
                           const ScoresDims *dims)
{
    return read_array(out, group, path, name, dims, H5T_FLOAT, H5T_NATIVE_DOUBLE);
}

Status scores_write_tokens(hid_t group, const char *path, const char *name, const int32_t *tokens,
                           const ScoresDims *dims)
{
    return write_array(group, path, name, tokens, dims, H5T_STD_I32LE, H5T_NATIVE_INT32);
}

Status scores_read_tokens(int32_t *out, hid_t group, const char *path, const char *name,
                          const ScoresDims *dims)
{
    return read_array(out, group, path, name, dims, H5T_INTEGER, H5T_NATIVE_INT32);
}
