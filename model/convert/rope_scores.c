// Sums of pair norms, and the HDF5 file that holds them. Sums are in double: a thousand sequences
// are millions of tokens, and float would stop counting at 2^24.
#include "model/convert/rope_scores.h"

#include "base/file.h"
#include "base/hdf5_error.h"
#include "base/hdf5_file.h"
#include "base/temporary.h"

#include <errno.h>
#include <hdf5.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Elements of q_norm (n_heads = H) or k_norm (K): [L, n_heads, E/2].
static int64_t norms_count(const ModelShape *s, int n_heads)
{
    return (int64_t)s->n_layers * n_heads * (s->head_dim / 2);
}

int64_t rope_scores_count(const ModelShape *s)
{
    return norms_count(s, s->n_heads) + norms_count(s, s->n_kv_heads) + 1;
}

// One block, so that ranks add their scores up by one reduction: queries, keys, and last the number
// of tokens.
Status rope_scores_create(RopeScores *out, const ModelShape *shape)
{
    int64_t count = rope_scores_count(shape);
    double *block = calloc((size_t)count, sizeof *block);
    if (block == NULL)
        return fail(FAILED, "no memory for %lld RoPE scores", (long long)count);
    *out = (RopeScores){
        .q_norm = block,
        .k_norm = block + norms_count(shape, shape->n_heads),
        .n_tokens = block + count - 1,
        .block = block,
        .shape = *shape,
    };
    return OK;
}

void rope_scores_release(RopeScores *scores)
{
    free(scores->block);
    *scores = (RopeScores){0};
}

void rope_scores_add(RopeScores *scores, int layer, const float *qkv, int64_t row, int64_t n_tokens)
{
    const ModelShape *s = &scores->shape;
    const int H = s->n_heads, K = s->n_kv_heads, half = s->head_dim / 2;
    CHECK(layer >= 0 && layer < s->n_layers, "layer %d of %d", layer, s->n_layers);
    // One thread owns a head, so that the order of its sums does not depend on the thread count.
#pragma omp parallel for schedule(static)
    for (int head = 0; head < H + K; head++) {
        double *sums = head < H ? scores->q_norm + ((int64_t)layer * H + head) * half
                                : scores->k_norm + ((int64_t)layer * K + head - H) * half;
        for (int64_t t = 0; t < n_tokens; t++) {
            const float *x = qkv + t * row + (int64_t)head * 2 * half;
            for (int p = 0; p < half; p++) {
                // The norm of pair p over its two dims (p, p + E/2), which RoPE does not change: a
                // rotation keeps lengths.
                double a = x[p], b = x[p + half];
                sums[p] += sqrt(a * a + b * b);
            }
        }
    }
    if (layer == 0) // every token passes every layer: counted once
        *scores->n_tokens += (double)n_tokens;
}

// ---- the file ---------------------------------------------------------------------------------

// The file's attributes, all of them int64.
enum { N_ATTRIBUTES = 6, N_TOKENS = 5, FORMAT_VERSION = 1 };
static const char *const attribute_names[N_ATTRIBUTES] = {"version",    "n_layers", "n_heads",
                                                          "n_kv_heads", "head_dim", "n_tokens"};

// What a file must have to be of this model, and its number of tokens.
static void fill_attributes(int64_t values[N_ATTRIBUTES], const ModelShape *s, double n_tokens)
{
    values[0] = FORMAT_VERSION;
    values[1] = s->n_layers;
    values[2] = s->n_heads;
    values[3] = s->n_kv_heads;
    values[4] = s->head_dim;
    values[N_TOKENS] = (int64_t)n_tokens;
}

// hdf5_fail() comes before anything is closed: every later call of HDF5 forgets the reason.
static Status write_attribute(hid_t file, const char *path, const char *name, int64_t value)
{
    Status status = OK;
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, H5T_NATIVE_INT64, &value) < 0)
        status = hdf5_fail(FAILED, path, "write failed");
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Sclose(space);
    return status;
}

// [L, n_heads, E/2] in one chunk, since chunks have checksums: HDF5 then notices damage in reading.
static Status write_norms(hid_t file, const char *path, const char *name, const double *values,
                          const ModelShape *s, int n_heads)
{
    Status status = OK;
    hsize_t dims[3] = {(hsize_t)s->n_layers, (hsize_t)n_heads, (hsize_t)s->head_dim / 2};
    hid_t space = H5Screate_simple(3, dims, NULL), creation = H5Pcreate(H5P_DATASET_CREATE);
    hid_t dataset = H5I_INVALID_HID;
    if (H5Pset_chunk(creation, 3, dims) >= 0 && H5Pset_fletcher32(creation) >= 0)
        dataset = H5Dcreate2(file, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    if (dataset < 0 ||
        H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        status = hdf5_fail(FAILED, path, "write failed");
    if (dataset >= 0)
        H5Dclose(dataset);
    H5Pclose(creation);
    H5Sclose(space);
    return status;
}

static Status write_content(hid_t file, const char *path, const RopeScores *scores)
{
    const ModelShape *s = &scores->shape;
    int64_t values[N_ATTRIBUTES];
    fill_attributes(values, s, *scores->n_tokens);
    for (int i = 0; i < N_ATTRIBUTES; i++)
        TRY(write_attribute(file, path, attribute_names[i], values[i]));
    TRY(write_norms(file, path, "q_norm", scores->q_norm, s, s->n_heads));
    return write_norms(file, path, "k_norm", scores->k_norm, s, s->n_kv_heads);
}

Status rope_scores_write(const RopeScores *scores, const char *path)
{
    char temporary[PATH_BYTES];
    Status status;
    TRY(file_check_target(path));
    temporary_remove_dead(path);
    TRY(temporary_make(temporary, path));
    hdf5_silence();
    // From 1.10 on every structure of the file has a checksum, the chunk index included.
    const hid_t file = hdf5_create(temporary, H5F_LIBVER_V110);
    if (file < 0) {
        status = hdf5_fail(FAILED, path, "cannot be written");
        goto remove_file;
    }
    TRY_GOTO(close_file, write_content(file, path, scores));
    if (H5Fclose(file) < 0) {
        status = hdf5_fail(FAILED, path, "write failed");
        goto remove_file;
    }
    return file_publish(temporary, path);
close_file:
    H5Fclose(file);
remove_file:
    unlink(temporary);
    return status;
}

// Any integer type is accepted, since h5py writes others than ours.
static Status read_attribute(int64_t *out, hid_t file, const char *path, const char *name)
{
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
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

// Shape and class are checked before the read, so that HDF5 never writes beyond `out`.
static Status read_norms(double *out, hid_t file, const char *path, const char *name,
                         const ModelShape *s, int n_heads)
{
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    if (dataset < 0)
        return hdf5_fail(BAD_INPUT, path, "not a file of RoPE scores (mha2mla score makes them)");
    hid_t space = H5Dget_space(dataset), type = H5Dget_type(dataset);
    hsize_t dims[3] = {0};
    Status status = OK;
    if (H5Sget_simple_extent_ndims(space) != 3 ||
        H5Sget_simple_extent_dims(space, dims, NULL) != 3 || dims[0] != (hsize_t)s->n_layers ||
        dims[1] != (hsize_t)n_heads || dims[2] != (hsize_t)s->head_dim / 2 ||
        H5Tget_class(type) != H5T_FLOAT)
        status = fail(BAD_INPUT, "%s: dataset %s is not %d x %d x %d floating-point numbers", path,
                      name, s->n_layers, n_heads, s->head_dim / 2);
    else if (H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0)
        status = hdf5_fail(BAD_INPUT, path, name);
    H5Tclose(type);
    H5Sclose(space);
    H5Dclose(dataset);
    return status;
}

// Bounds of a file that is read without a model: dims are then taken as the file has them. They
// must fit ints before shape_check_heads() can look at them.
static Status check_own_dims(ModelShape *out, const int64_t got[N_ATTRIBUTES], const char *path)
{
    static const int64_t max[N_TOKENS] = {FORMAT_VERSION, INT_MAX, INT_MAX, INT_MAX, INT_MAX};
    for (int i = 0; i < N_TOKENS; i++)
        if (got[i] < 1 || got[i] > max[i])
            return fail(BAD_INPUT, "%s: %s is %lld, allowed are 1 to %lld", path,
                        attribute_names[i], (long long)got[i], (long long)max[i]);
    *out = (ModelShape){.n_layers = (int)got[1],
                        .n_heads = (int)got[2],
                        .n_kv_heads = (int)got[3],
                        .head_dim = (int)got[4],
                        .rope_pairs = (int)got[4] / 2};
    return shape_check_heads(out, path);
}

static Status read_dims(ModelShape *out, double *n_tokens, const ModelShape *shape, hid_t file,
                        const char *path)
{
    int64_t expected[N_ATTRIBUTES], got[N_ATTRIBUTES];
    for (int i = 0; i < N_ATTRIBUTES; i++)
        TRY(read_attribute(&got[i], file, path, attribute_names[i]));
    *n_tokens = (double)got[N_TOKENS];
    if (shape == NULL)
        return check_own_dims(out, got, path);
    fill_attributes(expected, shape, 0);
    for (int i = 0; i < N_TOKENS; i++)
        if (got[i] != expected[i])
            return fail(BAD_INPUT, "%s: %s is %lld, needed is %lld; make scores of this model",
                        path, attribute_names[i], (long long)got[i], (long long)expected[i]);
    *out = *shape;
    return OK;
}

// Asks for no memory that the file cannot fill: dims may be damaged, and even a file that somebody
// has compressed is at most a thousand times smaller than its numbers (deflate's limit).
static Status check_size(const ModelShape *dims, const char *path)
{
    const int64_t needed = rope_scores_count(dims) * (int64_t)sizeof(double);
    struct stat st;
    if (stat(path, &st) != 0)
        return fail(BAD_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    if (needed / 1024 > st.st_size)
        return fail(BAD_INPUT,
                    "%s: is damaged: its %lld bytes cannot hold the %lld of %d layers, %d query "
                    "and %d KV heads of width %d",
                    path, (long long)st.st_size, (long long)needed, dims->n_layers, dims->n_heads,
                    dims->n_kv_heads, dims->head_dim);
    return OK;
}

static Status read_content(RopeScores *scores, hid_t file, const char *path)
{
    const ModelShape *s = &scores->shape;
    TRY(read_norms(scores->q_norm, file, path, "q_norm", s, s->n_heads));
    return read_norms(scores->k_norm, file, path, "k_norm", s, s->n_kv_heads);
}

Status rope_scores_read(RopeScores *out, const ModelShape *shape, const char *path)
{
    hdf5_silence();
    if (access(path, R_OK) != 0)
        return fail(BAD_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    if (file_is_dir(path))
        return fail(BAD_INPUT, "%s: is a directory, not a file of RoPE scores", path);
    hid_t file;
    TRY(hdf5_open(&file, path));
    RopeScores scores;
    ModelShape dims;
    double n_tokens;
    Status status;
    TRY_GOTO(close_file, read_dims(&dims, &n_tokens, shape, file, path));
    TRY_GOTO(close_file, check_size(&dims, path));
    TRY_GOTO(close_file, rope_scores_create(&scores, &dims));
    *scores.n_tokens = n_tokens;
    TRY_GOTO(release_scores, read_content(&scores, file, path));
    H5Fclose(file);
    *out = scores;
    return OK;
release_scores:
    rope_scores_release(&scores);
close_file:
    H5Fclose(file);
    return status;
}
