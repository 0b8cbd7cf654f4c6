// Sums of pair norms, and the HDF5 file that holds them. Sums are in double: a thousand sequences
// are millions of tokens, and float would stop counting at 2^24.
#include "model/convert/rope_scores.h"

#include "base/file.h"
#include "base/hdf5_error.h"
#include "base/hdf5_file.h"
#include "base/temporary.h"
#include "model/convert/scores_hdf5.h"
#include "model/kernels/half.h"

#include <errno.h>
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

static double number(Rows row, int i)
{
    return row.dtype == DTYPE_BF16 ? (double)half_bf16_to_f32(((const uint16_t *)row.data)[i])
                                   : (double)((const float *)row.data)[i];
}

void rope_scores_add(RopeScores *scores, int layer, Rows qkv, int64_t n_tokens)
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
            const Rows dims = rows_at(qkv, t, (int64_t)head * 2 * half);
            for (int p = 0; p < half; p++) {
                // The norm of pair p over its two dims (p, p + E/2), which RoPE does not change: a
                // rotation keeps lengths.
                const double a = number(dims, p), b = number(dims, p + half);
                sums[p] += sqrt(a * a + b * b);
            }
        }
    }
    if (layer == 0) // every token passes every layer: counted once
        *scores->n_tokens += (double)n_tokens;
}

// ---- the file ---------------------------------------------------------------------------------

// The file's attributes, all of them int64.
enum { N_ATTRIBUTES = 6, N_TOKENS = 5 };
static const char *const attribute_names[N_ATTRIBUTES] = {"version",    "n_layers", "n_heads",
                                                          "n_kv_heads", "head_dim", "n_tokens"};

// What a file must have to be of this model, and its number of tokens.
static void fill_attributes(int64_t values[N_ATTRIBUTES], int version, const ModelShape *s,
                            double n_tokens)
{
    values[0] = version;
    values[1] = s->n_layers;
    values[2] = s->n_heads;
    values[3] = s->n_kv_heads;
    values[4] = s->head_dim;
    values[N_TOKENS] = (int64_t)n_tokens;
}

// [L, n_heads, E/2].
static ScoresDims norms_dims(const ModelShape *s, int n_heads)
{
    return (ScoresDims){3, {s->n_layers, n_heads, s->head_dim / 2}};
}

Status rope_scores_write_content(const RopeScores *scores, int version, hid_t file,
                                 const char *path)
{
    const ModelShape *s = &scores->shape;
    const ScoresDims q = norms_dims(s, s->n_heads), k = norms_dims(s, s->n_kv_heads);
    int64_t values[N_ATTRIBUTES];
    fill_attributes(values, version, s, *scores->n_tokens);
    for (int i = 0; i < N_ATTRIBUTES; i++)
        TRY(scores_write_attribute(file, path, attribute_names[i], values[i]));
    TRY(scores_write_doubles(file, path, "q_norm", scores->q_norm, &q));
    return scores_write_doubles(file, path, "k_norm", scores->k_norm, &k);
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
    TRY_GOTO(close_file, rope_scores_write_content(scores, SCORES_NORMS, file, path));
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

// Bounds of a file that is read without a model: dims are then taken as the file has them. They
// must fit ints before shape_check_heads() can look at them.
static Status check_own_dims(ModelShape *out, const int64_t got[N_ATTRIBUTES], const char *path)
{
    static const int64_t max[N_TOKENS] = {SCORES_STATISTICS, INT_MAX, INT_MAX, INT_MAX, INT_MAX};
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
        TRY(scores_read_attribute(&got[i], file, path, attribute_names[i]));
    *n_tokens = (double)got[N_TOKENS];
    if (shape == NULL)
        return check_own_dims(out, got, path);
    if (got[0] < SCORES_NORMS || got[0] > SCORES_STATISTICS)
        return fail(BAD_INPUT, "%s: version is %lld, needed is %d to %d; make the scores again",
                    path, (long long)got[0], SCORES_NORMS, SCORES_STATISTICS);
    fill_attributes(expected, (int)got[0], shape, 0);
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
    const ScoresDims q = norms_dims(s, s->n_heads), k = norms_dims(s, s->n_kv_heads);
    TRY(scores_read_doubles(scores->q_norm, file, path, "q_norm", &q));
    return scores_read_doubles(scores->k_norm, file, path, "k_norm", &k);
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
