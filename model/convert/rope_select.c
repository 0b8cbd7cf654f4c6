// The strategies, the calibration sums behind the 2-norm, and their file.
#include "model/convert/rope_select.h"

#include "base/file.h"

#include <errno.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const strategy_names[] = {"high", "low", "uniform", "2-norm"};
enum { N_STRATEGIES = sizeof strategy_names / sizeof strategy_names[0] };

Status rope_strategy_parse(RopeStrategy *out, const char *name)
{
    for (int i = 0; i < N_STRATEGIES; i++) {
        if (strcmp(name, strategy_names[i]) == 0) {
            *out = (RopeStrategy)i;
            return OK;
        }
    }
    return fail(BAD_INPUT, "RoPE strategy is '%.64s', allowed are high, low, uniform and 2-norm",
                name);
}

const char *rope_strategy_name(RopeStrategy strategy)
{
    CHECK((int)strategy >= 0 && (int)strategy < N_STRATEGIES, "strategy %d", (int)strategy);
    return strategy_names[strategy];
}

// Calibration sums.

static int64_t norms_count(const ModelShape *s, int n_heads)
{
    return (int64_t)s->n_layers * n_heads * (s->head_dim / 2);
}

int64_t rope_scores_count(const ModelShape *s)
{
    return norms_count(s, s->n_heads) + norms_count(s, s->n_kv_heads) + 1;
}

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
    // One thread owns a head, so its sums have one order whatever the number of threads.
#pragma omp parallel for schedule(static)
    for (int head = 0; head < H + K; head++) {
        double *sums = head < H ? scores->q_norm + ((int64_t)layer * H + head) * half
                                : scores->k_norm + ((int64_t)layer * K + head - H) * half;
        for (int64_t t = 0; t < n_tokens; t++) {
            const float *x = qkv + t * row + (int64_t)head * 2 * half;
            for (int p = 0; p < half; p++) {
                double a = x[p], b = x[p + half];
                sums[p] += sqrt(a * a + b * b);
            }
        }
    }
    if (layer == 0)
        *scores->n_tokens += (double)n_tokens;
}

// Selection.

static Status check_scores(const RopeScores *scores, const ModelShape *s)
{
    if (scores == NULL)
        return fail(BAD_INPUT, "2-norm needs RoPE scores; make them with 'mha2mla score'");
    CHECK(scores->shape.n_layers == s->n_layers && scores->shape.n_heads == s->n_heads &&
              scores->shape.n_kv_heads == s->n_kv_heads && scores->shape.head_dim == s->head_dim,
          "scores of another model");
    if (!(isfinite(*scores->n_tokens) && *scores->n_tokens >= 1))
        return fail(BAD_INPUT, "RoPE scores are of %g tokens; make them again with more data",
                    *scores->n_tokens);
    // A mean norm of floats is below 1e39, so that no product below is infinite or NaN.
    const double n = *scores->n_tokens;
    for (int64_t i = 0; i < rope_scores_count(s) - 1; i++)
        if (!(scores->block[i] >= 0 && scores->block[i] <= 1e39 * n))
            return fail(BAD_INPUT,
                        "RoPE score %lld is %g, not a sum of %g norms; check the model's weights "
                        "and make the scores again",
                        (long long)i, scores->block[i], n);
    return OK;
}

// score[p] of one KV head: the sum over its query heads of E|q_p| E|k_p|.
static void score_pairs(double *score, const RopeScores *scores, int layer, int kv_head)
{
    const ModelShape *s = &scores->shape;
    const int half = s->head_dim / 2, G = s->n_heads / s->n_kv_heads;
    const double *k = scores->k_norm + ((int64_t)layer * s->n_kv_heads + kv_head) * half;
    const double *q = scores->q_norm + ((int64_t)layer * s->n_heads + (int64_t)kv_head * G) * half;
    const double n = *scores->n_tokens;
    for (int p = 0; p < half; p++) {
        double q_mean = 0;
        for (int g = 0; g < G; g++)
            q_mean += q[(int64_t)g * half + p] / n;
        score[p] = q_mean * (k[p] / n);
    }
}

// The P largest, ascending by index; of equals the lower index. A pair is kept if fewer than P
// pairs go before it.
static void keep_largest(int32_t *pairs, int P, const double *score, int half)
{
    int kept = 0;
    for (int p = 0; p < half; p++) {
        int before = 0;
        for (int other = 0; other < half; other++)
            before += score[other] > score[p] || (score[other] == score[p] && other < p);
        if (before < P)
            pairs[kept++] = p;
    }
    CHECK(kept == P, "%d of %d pairs kept", kept, P);
}

static Status select_2norm(int32_t *pairs, const ModelShape *s, int P, const RopeScores *scores)
{
    TRY(check_scores(scores, s));
    double *score = malloc((size_t)(s->head_dim / 2) * sizeof *score);
    if (score == NULL)
        return fail(FAILED, "no memory for %d RoPE scores", s->head_dim / 2);
    for (int layer = 0; layer < s->n_layers; layer++) {
        for (int head = 0; head < s->n_kv_heads; head++) {
            score_pairs(score, scores, layer, head);
            keep_largest(pairs, P, score, s->head_dim / 2);
            pairs += P;
        }
    }
    free(score);
    return OK;
}

Status rope_select(int32_t *pairs, const ModelShape *s, int P, RopeStrategy strategy,
                   const RopeScores *scores)
{
    const int half = s->head_dim / 2;
    if (P < 1 || P > half)
        return fail(BAD_INPUT, "rope_pairs is %d, allowed are 1 to %d (head width %d)", P, half,
                    s->head_dim);
    if (strategy == ROPE_2NORM)
        return select_2norm(pairs, s, P, scores);
    for (int64_t row = 0; row < (int64_t)s->n_layers * s->n_kv_heads; row++)
        for (int i = 0; i < P; i++)
            pairs[row * P + i] = (int32_t)(strategy == ROPE_HIGH  ? i
                                           : strategy == ROPE_LOW ? half - P + i
                                                                  : (int64_t)i * half / P);
    return OK;
}

// The file.

static herr_t take_innermost(unsigned n, const H5E_error2_t *error, void *text)
{
    if (n == 0)
        snprintf(text, 256, "%.255s", error->desc);
    return 0;
}

// Fails with what HDF5 says about the call that went wrong.
static Status fail_hdf5(Status kind, const char *path, const char *what)
{
    char reason[256] = "no reason given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, reason);
    H5Eclear2(H5E_DEFAULT);
    return fail(kind, "%s: %s: %s", path, what, reason);
}

// The file's attributes, whole numbers all.
enum { N_ATTRIBUTES = 6, N_TOKENS = 5, FORMAT_VERSION = 1 };
static const char *const attribute_names[N_ATTRIBUTES] = {"version",    "n_layers", "n_heads",
                                                          "n_kv_heads", "head_dim", "n_tokens"};

static void fill_attributes(int64_t values[N_ATTRIBUTES], const ModelShape *s, double n_tokens)
{
    values[0] = FORMAT_VERSION;
    values[1] = s->n_layers;
    values[2] = s->n_heads;
    values[3] = s->n_kv_heads;
    values[4] = s->head_dim;
    values[N_TOKENS] = (int64_t)n_tokens;
}

// Reasons are taken before anything is closed: every other call of HDF5 forgets them.
static Status write_attribute(hid_t file, const char *path, const char *name, int64_t value)
{
    Status status = OK;
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, H5T_NATIVE_INT64, &value) < 0)
        status = fail_hdf5(FAILED, path, "write failed");
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Sclose(space);
    return status;
}

// One chunk with a checksum: HDF5 then notices damage when it reads.
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
        status = fail_hdf5(FAILED, path, "write failed");
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
    int n = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (n < 0 || n >= PATH_BYTES)
        return fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
    TRY(file_check_target(path)); // says why in plainer words than HDF5
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    // From 1.10 on every structure of the file has a checksum, the chunk index included.
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_LATEST);
    hid_t file = H5Fcreate(temporary, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    Status status = file < 0 ? fail_hdf5(FAILED, temporary, "cannot be written") : OK;
    H5Pclose(access);
    if (file < 0)
        return status;
    status = write_content(file, temporary, scores);
    if (H5Fclose(file) < 0 && status == OK)
        status = fail_hdf5(FAILED, temporary, "write failed");
    if (status == OK)
        return file_publish(temporary, path);
    unlink(temporary);
    return status;
}

static Status read_attribute(int64_t *out, hid_t file, const char *path, const char *name)
{
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    if (attribute < 0)
        return fail_hdf5(BAD_INPUT, path, "not a file of RoPE scores (mha2mla score makes them)");
    hid_t space = H5Aget_space(attribute), type = H5Aget_type(attribute);
    Status status = OK;
    if (H5Sget_simple_extent_npoints(space) != 1 || H5Tget_class(type) != H5T_INTEGER)
        status = fail(BAD_INPUT, "%s: attribute %s is not one whole number", path, name);
    else if (H5Aread(attribute, H5T_NATIVE_INT64, out) < 0)
        status = fail_hdf5(BAD_INPUT, path, name);
    H5Tclose(type);
    H5Sclose(space);
    H5Aclose(attribute);
    return status;
}

static Status read_norms(double *out, hid_t file, const char *path, const char *name,
                         const ModelShape *s, int n_heads)
{
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    if (dataset < 0)
        return fail_hdf5(BAD_INPUT, path, "not a file of RoPE scores (mha2mla score makes them)");
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
        status = fail_hdf5(BAD_INPUT, path, name);
    H5Tclose(type);
    H5Sclose(space);
    H5Dclose(dataset);
    return status;
}

// What a file may say of itself, whatever model it is for.
static Status check_own_dims(ModelShape *out, const int64_t got[N_ATTRIBUTES], const char *path)
{
    static const int64_t most[N_ATTRIBUTES] = {FORMAT_VERSION, 1000, 1024, 1024, 1024, INT64_MAX};
    for (int i = 0; i < N_TOKENS; i++)
        if (got[i] < 1 || got[i] > most[i])
            return fail(BAD_INPUT, "%s: %s is %lld, allowed are 1 to %lld", path,
                        attribute_names[i], (long long)got[i], (long long)most[i]);
    *out = (ModelShape){.n_layers = (int)got[1],
                        .n_heads = (int)got[2],
                        .n_kv_heads = (int)got[3],
                        .head_dim = (int)got[4],
                        .rope_pairs = (int)got[4] / 2};
    return shape_check(out, path);
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

static Status read_content(RopeScores *scores, hid_t file, const char *path)
{
    const ModelShape *s = &scores->shape;
    TRY(read_norms(scores->q_norm, file, path, "q_norm", s, s->n_heads));
    return read_norms(scores->k_norm, file, path, "k_norm", s, s->n_kv_heads);
}

Status rope_scores_read(RopeScores *out, const ModelShape *shape, const char *path)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    if (access(path, R_OK) != 0)
        return fail(BAD_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    if (file_is_dir(path))
        return fail(BAD_INPUT, "%s: is a directory, not a file of RoPE scores", path);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        return fail_hdf5(BAD_INPUT, path, "not a readable HDF5 file");
    RopeScores scores = {0};
    ModelShape dims;
    double n_tokens;
    Status status;
    TRY_GOTO(close_file, read_dims(&dims, &n_tokens, shape, file, path));
    TRY_GOTO(close_file, rope_scores_create(&scores, &dims));
    *scores.n_tokens = n_tokens;
    status = read_content(&scores, file, path);
    if (status == OK)
        *out = scores;
    else
        rope_scores_release(&scores);
close_file:
    H5Fclose(file);
    return status;
}
