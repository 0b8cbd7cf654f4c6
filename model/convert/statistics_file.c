// Matrices are symmetric: their upper triangles are half the bytes.
#include "model/convert/statistics_file.h"

#include "base/hdf5_error.h"
#include "base/hdf5_file.h"
#include "base/temporary.h"
#include "model/convert/scores_hdf5.h"

#include <errno.h>
#include <hdf5.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { N_INFO = 5, NAME_BYTES = 32 };
static const char *const info_names[N_INFO] = {"d_model", "n_pools", "n_windows", "n_attention",
                                               "seq_len"};
static const char group_name[] = "statistics";

static int64_t triangle(int D)
{
    return (int64_t)D * (D + 1) / 2;
}

static double *new_packed(const ModelShape *s, int n_pools)
{
    return malloc((size_t)(n_pools * triangle(s->d_model)) * sizeof(double));
}

// HDF5 holds a chunk, and once more with its checksum.
int64_t statistics_file_bytes(const ModelShape *s, int n_pools)
{
    const int64_t packed = n_pools * triangle(s->d_model);
    const int64_t chunk = packed < SCORES_MAX_CHUNK ? packed : SCORES_MAX_CHUNK;
    return (packed + 2 * chunk) * (int64_t)sizeof(double);
}

static Status no_memory(const char *path)
{
    return fail(FAILED, "%s: no memory for a layer's statistics", path);
}

// Each matrix [D, D] of `count` to its upper triangle.
static void pack(double *packed, const double *squares, int count, int D)
{
    for (int c = 0; c < count; c++, squares += (int64_t)D * D)
        for (int64_t i = 0; i < D; i++) {
            memcpy(packed, squares + i * D + i, (size_t)(D - i) * sizeof *packed);
            packed += D - i;
        }
}

static void unpack(double *squares, const double *packed, int count, int D)
{
    for (int c = 0; c < count; c++, squares += (int64_t)D * D)
        for (int64_t i = 0; i < D; i++)
            for (int64_t j = i; j < D; j++)
                squares[i * D + j] = squares[j * D + i] = *packed++;
}

// ---- one layer's datasets, in one table for writing and reading --------------------------------

typedef struct Dataset {
    const char *name;
    double *values;
    int count, side; // matrices [side, side]
    bool is_packed;
} Dataset;

enum { N_DATASETS = 6 };

static void list_datasets(Dataset out[N_DATASETS], const LayerStatistics *of, const ModelShape *s)
{
    const int pools = of->n_pools, D = s->d_model, H = s->n_heads;
    const Dataset list[N_DATASETS] = {
        {"covariance", of->covariance, 1, D, true},
        {"value", of->value, pools, D, true},
        {"key", of->key, pools, D, true},
        {"tau", of->tau, H, 1, false},
        {"query", of->query, H, s->head_dim, false},
        {"gram", of->gram, H, statistics_features(s), false},
    };
    memcpy(out, list, sizeof list);
}

static ScoresDims dims_of(const Dataset *dataset)
{
    if (dataset->is_packed)
        return (ScoresDims){2, {dataset->count, triangle(dataset->side)}};
    return (ScoresDims){3, {dataset->count, dataset->side, dataset->side}};
}

static void layer_name(char out[NAME_BYTES], int layer)
{
    snprintf(out, NAME_BYTES, "layer-%d", layer);
}

// ---- writing -----------------------------------------------------------------------------------

static Status write_info(StatisticsWriter *writer, const StatisticsInfo *info,
                         const int32_t *tokens)
{
    const int64_t values[N_INFO] = {writer->shape.d_model, info->n_pools, info->n_windows,
                                    info->n_attention, info->seq_len};
    const ScoresDims dims = {2, {info->n_windows, info->seq_len}};
    for (int i = 0; i < N_INFO; i++)
        TRY(scores_write_attribute(writer->group, writer->path, info_names[i], values[i]));
    return scores_write_tokens(writer->group, writer->path, "tokens", tokens, &dims);
}

// Closes what is open; false: the file could not be written out.
static bool close_writer(StatisticsWriter *writer)
{
    if (writer->group > 0)
        H5Gclose(writer->group);
    const bool is_whole = writer->file <= 0 || H5Fclose(writer->file) >= 0;
    free(writer->packed);
    writer->group = writer->file = 0;
    writer->packed = NULL;
    return is_whole;
}

void statistics_writer_abandon(StatisticsWriter *writer)
{
    close_writer(writer);
    if (writer->temporary[0] != '\0')
        unlink(writer->temporary);
    writer->temporary[0] = '\0';
}

Status statistics_writer_open(StatisticsWriter *out, const RopeScores *scores,
                              const StatisticsInfo *info, const int32_t *tokens, const char *path)
{
    StatisticsWriter *writer = out;
    Status status;
    *writer = (StatisticsWriter){.shape = scores->shape};
    snprintf(writer->path, sizeof writer->path, "%s", path);
    TRY(file_check_target(path));
    temporary_remove_dead(path);
    TRY(temporary_make(writer->temporary, path));
    hdf5_silence();
    writer->packed = new_packed(&scores->shape, info->n_pools);
    TRY_GOTO(abandon, writer->packed != NULL ? OK : no_memory(path));
    writer->file = hdf5_create(writer->temporary, H5F_LIBVER_V110);
    TRY_GOTO(abandon, writer->file >= 0 ? OK : hdf5_fail(FAILED, path, "cannot be written"));
    TRY_GOTO(abandon, rope_scores_write_content(scores, SCORES_STATISTICS, writer->file, path));
    writer->group = scores_make_group(writer->file, group_name);
    TRY_GOTO(abandon, writer->group >= 0 ? OK : hdf5_fail(FAILED, path, "write failed"));
    TRY_GOTO(abandon, write_info(writer, info, tokens));
    return OK;
abandon:
    statistics_writer_abandon(writer);
    return status;
}

Status statistics_writer_add(StatisticsWriter *writer, int layer, const LayerStatistics *statistics)
{
    char name[NAME_BYTES];
    Dataset datasets[N_DATASETS];
    Status status = OK;
    list_datasets(datasets, statistics, &writer->shape);
    layer_name(name, layer);
    hdf5_silence();
    hid_t group = scores_make_group(writer->group, name);
    if (group < 0)
        return hdf5_fail(FAILED, writer->path, "write failed");
    for (int i = 0; i < N_DATASETS && status == OK; i++) {
        const Dataset *dataset = &datasets[i];
        const ScoresDims dims = dims_of(dataset);
        if (dataset->is_packed)
            pack(writer->packed, dataset->values, dataset->count, dataset->side);
        status = scores_write_doubles(group, writer->path, dataset->name,
                                      dataset->is_packed ? writer->packed : dataset->values, &dims);
    }
    H5Gclose(group);
    return status;
}

Status statistics_writer_publish(StatisticsWriter *writer)
{
    if (!close_writer(writer)) {
        const Status status = hdf5_fail(FAILED, writer->path, "write failed");
        unlink(writer->temporary);
        return status;
    }
    return file_publish(writer->temporary, writer->path);
}

// ---- reading -----------------------------------------------------------------------------------

// Asks for no memory that the file cannot fill, as rope_scores_read(): even a compressed one is at
// most a thousand times smaller than its tokens.
static Status check_size(const StatisticsFile *file)
{
    const int64_t needed =
        (int64_t)file->info.n_windows * file->info.seq_len * (int64_t)sizeof(int32_t);
    struct stat st;
    if (stat(file->path, &st) != 0)
        return fail(BAD_INPUT, "%s: cannot be read: %s", file->path, strerror(errno));
    if (needed / 1024 > st.st_size)
        return fail(BAD_INPUT, "%s: is damaged: its %lld bytes cannot hold %d windows of %d tokens",
                    file->path, (long long)st.st_size, file->info.n_windows, file->info.seq_len);
    return OK;
}

static Status read_info(StatisticsFile *file)
{
    const ModelShape *s = &file->shape;
    const int64_t max[N_INFO] = {s->d_model, s->n_heads, INT_MAX, INT_MAX, 1 << 24};
    int64_t got[N_INFO];
    for (int i = 0; i < N_INFO; i++) {
        TRY(scores_read_attribute(&got[i], file->group, file->path, info_names[i]));
        if (got[i] < 1 || got[i] > max[i])
            return fail(BAD_INPUT, "%s: %s is %lld, allowed are 1 to %lld", file->path,
                        info_names[i], (long long)got[i], (long long)max[i]);
    }
    if (got[0] != s->d_model)
        return fail(BAD_INPUT, "%s: d_model is %lld, needed is %d; make scores of this model",
                    file->path, (long long)got[0], s->d_model);
    if (got[1] != 1 && got[1] != s->n_kv_heads && got[1] != s->n_heads)
        return fail(BAD_INPUT, "%s: n_pools is %lld, allowed are 1, %d and %d", file->path,
                    (long long)got[1], s->n_kv_heads, s->n_heads);
    file->info = (StatisticsInfo){(int)got[1], (int)got[2], (int)got[3], (int)got[4]};
    return check_size(file);
}

// Checks that the norms are this model's, too.
static Status check_scores(const ModelShape *shape, const char *path)
{
    RopeScores scores;
    TRY(rope_scores_read(&scores, shape, path));
    rope_scores_release(&scores);
    return OK;
}

static Status open_group(StatisticsFile *file)
{
    file->group = -1;
    if (H5Lexists(file->file, group_name, H5P_DEFAULT) > 0)
        file->group = H5Gopen2(file->file, group_name, H5P_DEFAULT);
    if (file->group >= 0)
        return read_info(file);
    return fail(BAD_INPUT,
                "%s: has norms of RoPE pairs alone, no statistics of activations; make it again "
                "with mha2mla score --windows 40",
                file->path);
}

Status statistics_file_open(StatisticsFile *out, const ModelShape *shape, const char *path)
{
    StatisticsFile file = {.shape = *shape};
    hid_t id;
    Status status;
    snprintf(file.path, sizeof file.path, "%s", path);
    TRY(check_scores(shape, path));
    TRY(hdf5_open(&id, path));
    file.file = id;
    TRY_GOTO(close_file, open_group(&file));
    file.packed = new_packed(shape, file.info.n_pools);
    TRY_GOTO(close_file, file.packed != NULL ? OK : no_memory(path));
    *out = file;
    return OK;
close_file:
    statistics_file_close(&file);
    return status;
}

void statistics_file_close(StatisticsFile *file)
{
    if (file->group > 0)
        H5Gclose(file->group);
    if (file->file > 0)
        H5Fclose(file->file);
    free(file->packed);
    *file = (StatisticsFile){0};
}

static Status open_layer(hid_t *out, const StatisticsFile *file, int layer)
{
    char name[NAME_BYTES];
    layer_name(name, layer);
    hdf5_silence();
    *out = H5Gopen2(file->group, name, H5P_DEFAULT);
    return *out >= 0 ? OK : hdf5_fail(BAD_INPUT, file->path, "a layer's statistics are missing");
}

static Status read_dataset(const StatisticsFile *file, hid_t group, const Dataset *dataset)
{
    const ScoresDims dims = dims_of(dataset);
    TRY(scores_read_doubles(dataset->is_packed ? file->packed : dataset->values, group, file->path,
                            dataset->name, &dims));
    if (dataset->is_packed)
        unpack(dataset->values, file->packed, dataset->count, dataset->side);
    return OK;
}

// The numbers may come from a file that somebody else has written.
static Status check_dataset(const StatisticsFile *file, const Dataset *dataset, int layer)
{
    const Status status = statistics_check_squares(dataset->values, dataset->count, dataset->side,
                                                   dataset->name, layer);
    return status == OK ? OK : fail_within(status, "%s", file->path);
}

Status statistics_file_read(StatisticsFile *file, int layer, LayerStatistics *out)
{
    Dataset datasets[N_DATASETS];
    Status status;
    hid_t group;
    CHECK(out->n_pools == file->info.n_pools, "%d pools of %d", out->n_pools, file->info.n_pools);
    list_datasets(datasets, out, &file->shape);
    TRY(open_layer(&group, file, layer));
    for (int i = 0; i < N_DATASETS; i++) {
        TRY_GOTO(close_group, read_dataset(file, group, &datasets[i]));
        TRY_GOTO(close_group, check_dataset(file, &datasets[i], layer));
    }
close_group:
    H5Gclose(group);
    return status;
}

Status statistics_file_read_gram(StatisticsFile *file, int layer, double *gram)
{
    const Dataset dataset = {"gram", gram, file->shape.n_heads, statistics_features(&file->shape),
                             false};
    Status status;
    hid_t group;
    TRY(open_layer(&group, file, layer));
    TRY_GOTO(close_group, read_dataset(file, group, &dataset));
    status = check_dataset(file, &dataset, layer);
close_group:
    H5Gclose(group);
    return status;
}

Status statistics_file_tokens(const StatisticsFile *file, int32_t *tokens)
{
    const ScoresDims dims = {2, {file->info.n_windows, file->info.seq_len}};
    TRY(scores_read_tokens(tokens, file->group, file->path, "tokens", &dims));
    for (int64_t i = 0; i < dims.dims[0] * dims.dims[1]; i++)
        if (tokens[i] < 0 || tokens[i] >= file->shape.vocab_size)
            return fail(BAD_INPUT,
                        "%s: token %d of its windows is not in the model's vocabulary of %d; make "
                        "scores of this model",
                        file->path, (int)tokens[i], file->shape.vocab_size);
    return OK;
}
