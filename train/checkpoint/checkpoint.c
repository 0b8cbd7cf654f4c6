#include "train/checkpoint/checkpoint.h"

#include "train/checkpoint/checkpoint_shard.h"

#include <dirent.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const format_name = "mha2mla-checkpoint";
enum { FORMAT_VERSION = 1, MOST_RANKS = 1 << 20 };

// ---- the shape, a table of its fields ----------------------------------------------------------

typedef struct ShapeField {
    const char *name;
    enum { FIELD_INT, FIELD_BOOL, FIELD_REAL } kind;
    size_t offset;
} ShapeField;

#define FIELD(kind, member)                                                                        \
    {                                                                                              \
#member, kind, offsetof(ModelShape, member)                                                \
    }

static const ShapeField shape_fields[] = {
    FIELD(FIELD_INT, n_layers),   FIELD(FIELD_INT, d_model),       FIELD(FIELD_INT, n_heads),
    FIELD(FIELD_INT, n_kv_heads), FIELD(FIELD_INT, head_dim),      FIELD(FIELD_INT, d_ffn),
    FIELD(FIELD_INT, vocab_size), FIELD(FIELD_INT, max_positions), FIELD(FIELD_INT, rope_pairs),
    FIELD(FIELD_INT, d_kv),       FIELD(FIELD_BOOL, tied_head),    FIELD(FIELD_REAL, rope_theta),
    FIELD(FIELD_REAL, rms_eps),
};
enum { N_SHAPE_FIELDS = sizeof shape_fields / sizeof shape_fields[0] };

static json_t *shape_to_json(const ModelShape *shape)
{
    json_t *object = json_pack("{s:s}", "svd", shape_svd_name(shape->svd));
    for (int i = 0; object != NULL && i < N_SHAPE_FIELDS; i++) {
        const ShapeField *field = &shape_fields[i];
        const void *at = (const char *)shape + field->offset;
        json_t *value = field->kind == FIELD_INT    ? json_integer(*(const int *)at)
                        : field->kind == FIELD_BOOL ? json_boolean(*(const bool *)at)
                                                    : json_real(*(const double *)at);
        json_object_set_new(object, field->name, value);
    }
    return object;
}

static Status shape_from_json(ModelShape *out, const json_t *object, const char *where)
{
    ModelShape shape = {0};
    const char *svd;
    for (int i = 0; i < N_SHAPE_FIELDS; i++) {
        const ShapeField *field = &shape_fields[i];
        void *at = (char *)&shape + field->offset;
        int64_t value = 0;
        if (field->kind == FIELD_INT) {
            TRY(json_get_int(&value, object, where, field->name, 0, 1 << 24));
            *(int *)at = (int)value;
        } else if (field->kind == FIELD_BOOL) {
            TRY(json_get_bool(at, object, where, field->name));
        } else {
            TRY(json_get_real(at, object, where, field->name, 0, 1e30));
        }
    }
    TRY(json_get_string(&svd, object, where, "svd"));
    shape.svd = strcmp(svd, shape_svd_name(SVD_SPLIT)) == 0 ? SVD_SPLIT : SVD_JOINT;
    TRY(shape_check(&shape, where));
    *out = shape;
    return OK;
}

// ---- the manifest ------------------------------------------------------------------------------

static json_t *tensors_to_json(const ModelShape *shape)
{
    json_t *array = json_array();
    for (int i = 0; array != NULL && i < params_n_tensors(shape); i++) {
        ParamInfo info = params_info(shape, i);
        json_array_append_new(array, json_pack("{s:s, s:I, s:i, s:i}", "name", info.name, "offset",
                                               (json_int_t)info.offset, "rows", info.rows, "cols",
                                               info.cols));
    }
    return array;
}

static json_t *pairs_to_json(const Model *model)
{
    const ModelShape *s = &model->shape;
    json_t *array = json_array();
    const int64_t count = (int64_t)s->n_layers * s->n_kv_heads * s->rope_pairs;
    for (int64_t i = 0; array != NULL && i < count; i++)
        json_array_append_new(array, json_integer(model->rope_pairs[i]));
    return array;
}

static json_t *files_to_json(const CheckpointFile *files, int n_files)
{
    json_t *array = json_array();
    for (int i = 0; array != NULL && i < n_files; i++) {
        char name[CHECKPOINT_SHARD_NAME_BYTES];
        checkpoint_shard_name(name, i);
        json_array_append_new(array, json_pack("{s:s, s:I, s:I}", "name", name, "bytes",
                                               (json_int_t)files[i].size_bytes, "crc32",
                                               (json_int_t)files[i].crc32));
    }
    return array;
}

static void set_text(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, text != NULL ? json_string(text) : json_null());
}

// JSON has no NaN: what is not known is left out.
static void set_real(json_t *object, const char *key, double value)
{
    if (isfinite(value))
        json_object_set_new(object, key, json_real(value));
}

static json_t *spikes_to_json(const SpikeHistory *spikes)
{
    return json_pack("{s:f, s:I, s:I, s:I}", "mean", spikes->mean, "n_accepted",
                     (json_int_t)spikes->n_accepted, "n_skipped", (json_int_t)spikes->n_skipped,
                     "n_skipped_in_row", (json_int_t)spikes->n_skipped_in_row);
}

static json_t *manifest_to_json(const RunState *progress, const Model *model,
                                const CheckpointContext *context, const CheckpointFile *files,
                                int n_files)
{
    const Config *config = context->config;
    const TrainConfig *train = &config->train;
    const int64_t samples = (int64_t)progress->step * train->global_batch;
    json_t *root =
        json_pack("{s:s, s:i, s:i, s:I, s:I, s:i, s:i, s:i, s:i}", "format", format_name, "version",
                  FORMAT_VERSION, "step", progress->step, "next_sample", (json_int_t)samples,
                  "tokens", (json_int_t)samples * config->data.seq_len, "global_batch",
                  train->global_batch, "micro_batch", train->micro_batch, "sum_groups",
                  train->sum_groups, "valid_step", progress->valid_step);
    if (root == NULL)
        return NULL;
    set_real(root, "loss", progress->loss);
    set_real(root, "grad_norm", progress->grad_norm);
    set_real(root, "valid_loss", progress->valid_loss);
    if (progress->valid_set[0] != '\0')
        set_text(root, "validation_set", progress->valid_set);
    json_object_set_new(root, "spikes", spikes_to_json(&progress->spikes));
    set_text(root, "reduce_dtype", config_reduce_dtype_name(train->reduce_dtype));
    set_text(root, "name", config->run.name);
    set_text(root, "base", config->model.base);
    if (config->model.convert.given)
        set_text(root, "rope", rope_strategy_name(config->model.convert.rope));
    set_text(root, "tokenizer", config->model.init.tokenizer);
    set_text(root, "tokenizer_sha256", context->tokenizer_sha256);
    json_object_set_new(root, "data", json_deep_copy(context->data_fingerprint));
    json_object_set_new(root, "shape", shape_to_json(&model->shape));
    json_object_set_new(root, "rope_pairs", pairs_to_json(model));
    json_object_set_new(root, "tensors", tensors_to_json(&model->shape));
    if (json_object_set_new(root, "files", files_to_json(files, n_files)) == 0)
        return root;
    json_decref(root);
    return NULL;
}

Status checkpoint_commit(const char *dir, const RunState *progress, const Model *model,
                         const CheckpointContext *context, const CheckpointFile *files, int n_files)
{
    char path[PATH_BYTES];
    TRY(file_join(path, dir, "manifest.json"));
    json_t *root = manifest_to_json(progress, model, context, files, n_files);
    if (root == NULL)
        return fail(FAILED, "%s: no memory, or a name in the config is not UTF-8", path);
    Status status = json_write_exact(root, path);
    json_decref(root);
    return status;
}

static double real_or_nan(const json_t *root, const char *key)
{
    const json_t *value = json_object_get(root, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static Status read_spikes(SpikeHistory *out, const json_t *root, const char *path)
{
    const json_t *object = json_object_get(root, "spikes");
    TRY(json_get_real(&out->mean, object, path, "mean", 0, INFINITY));
    TRY(json_get_int(&out->n_accepted, object, path, "n_accepted", 0, INT_MAX));
    TRY(json_get_int(&out->n_skipped, object, path, "n_skipped", 0, INT_MAX));
    return json_get_int(&out->n_skipped_in_row, object, path, "n_skipped_in_row", 0, INT_MAX);
}

static Status read_progress(RunState *out, const json_t *root, const char *path)
{
    int64_t step, valid_step;
    TRY(json_get_int(&step, root, path, "step", 0, INT_MAX));
    TRY(json_get_int(&valid_step, root, path, "valid_step", -1, step));
    *out = (RunState){.step = (int)step,
                      .loss = real_or_nan(root, "loss"),
                      .grad_norm = real_or_nan(root, "grad_norm"),
                      .valid_loss = real_or_nan(root, "valid_loss"),
                      .valid_step = (int)valid_step};
    const char *set = json_string_value(json_object_get(root, "validation_set"));
    snprintf(out->valid_set, sizeof out->valid_set, "%s", set != NULL ? set : "");
    return read_spikes(&out->spikes, root, path);
}

// The file is there and of its size; its CRC-32 is another matter (checkpoint_verify).
static Status check_file(CheckpointFile *out, const Checkpoint *checkpoint, int index,
                         const json_t *entry, const char *manifest_path)
{
    char path[PATH_BYTES];
    struct stat st;
    int64_t bytes, crc32;
    TRY(json_get_int(&bytes, entry, manifest_path, "bytes", 0, INT64_MAX));
    TRY(json_get_int(&crc32, entry, manifest_path, "crc32", 0, UINT32_MAX));
    TRY(checkpoint_shard_path(path, checkpoint->dir, index));
    if (stat(path, &st) != 0)
        return fail(BAD_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    if (st.st_size != bytes)
        return fail(BAD_INPUT, "%s: has %lld bytes, the manifest says %lld", path,
                    (long long)st.st_size, (long long)bytes);
    *out = (CheckpointFile){bytes, (uint32_t)crc32};
    return OK;
}

static Status read_files(Checkpoint *checkpoint, const char *path)
{
    const json_t *array = json_object_get(checkpoint->manifest, "files");
    const size_t n_files = json_array_size(array);
    if (n_files < 1 || n_files > MOST_RANKS)
        return fail(BAD_INPUT, "%s: files is not a list of them", path);
    checkpoint->files = calloc(n_files, sizeof *checkpoint->files);
    if (checkpoint->files == NULL)
        return fail(FAILED, "%s: no memory for %zu files", path, n_files);
    checkpoint->n_files = (int)n_files;
    for (int i = 0; i < checkpoint->n_files; i++)
        TRY(check_file(&checkpoint->files[i], checkpoint, i, json_array_get(array, (size_t)i),
                       path));
    return OK;
}

static Status read_manifest(Checkpoint *checkpoint, const char *path)
{
    const char *format;
    int64_t version;
    TRY(json_read(&checkpoint->manifest, path));
    const json_t *root = checkpoint->manifest;
    TRY(json_get_string(&format, root, path, "format"));
    if (strcmp(format, format_name) != 0)
        return fail(BAD_INPUT, "%s: format is '%.40s', not '%s'", path, format, format_name);
    TRY(json_get_int(&version, root, path, "version", FORMAT_VERSION, FORMAT_VERSION));
    TRY(read_progress(&checkpoint->progress, root, path));
    TRY(json_get_string(&checkpoint->tokenizer_sha256, root, path, "tokenizer_sha256"));
    TRY(shape_from_json(&checkpoint->shape, json_object_get(root, "shape"), path));
    return read_files(checkpoint, path);
}

Status checkpoint_open(Checkpoint *out, const char *dir)
{
    Checkpoint checkpoint = {0};
    char path[PATH_BYTES];
    TRY(file_join(path, dir, "manifest.json"));
    snprintf(checkpoint.dir, sizeof checkpoint.dir, "%s", dir); // shorter than the path
    if (!checkpoint_has_manifest(dir))
        return fail(BAD_INPUT, "%s: is missing: the checkpoint was not finished", path);
    Status status = read_manifest(&checkpoint, path);
    if (status == OK)
        *out = checkpoint;
    else
        checkpoint_close(&checkpoint);
    return status;
}

void checkpoint_close(Checkpoint *checkpoint)
{
    json_decref(checkpoint->manifest);
    free(checkpoint->files);
    *checkpoint = (Checkpoint){0};
}

// ---- the numbers -------------------------------------------------------------------------------

Status checkpoint_verify(const Checkpoint *checkpoint, int first, int stride)
{
    for (int i = first; i < checkpoint->n_files; i += stride) {
        char path[PATH_BYTES];
        uint32_t crc32;
        int64_t size_bytes;
        TRY(checkpoint_shard_path(path, checkpoint->dir, i));
        TRY(checksum_crc32_file(&crc32, &size_bytes, path));
        if (crc32 != checkpoint->files[i].crc32)
            return fail(BAD_INPUT, "%s: is damaged: CRC-32 %08x, the manifest says %08x", path,
                        crc32, checkpoint->files[i].crc32);
    }
    return OK;
}

Status checkpoint_check_shape(const Checkpoint *checkpoint, const ModelShape *shape)
{
    for (int i = 0; i < N_SHAPE_FIELDS; i++) {
        const ShapeField *field = &shape_fields[i];
        double values[2];
        for (int j = 0; j < 2; j++) {
            const void *at = (const char *)(j == 0 ? &checkpoint->shape : shape) + field->offset;
            values[j] = field->kind == FIELD_INT    ? *(const int *)at
                        : field->kind == FIELD_BOOL ? *(const bool *)at
                                                    : *(const double *)at;
        }
        if (values[0] != values[1])
            return fail(BAD_INPUT,
                        "%s: its model has %s %.9g, the config's %.9g; set it back, or give the "
                        "run another run.name",
                        checkpoint->dir, field->name, values[0], values[1]);
    }
    if (shape_is_mla(shape) && checkpoint->shape.svd != shape->svd)
        return fail(BAD_INPUT,
                    "%s: its model has %s SVD, the config's %s; set it back, or give the run "
                    "another run.name",
                    checkpoint->dir, shape_svd_name(checkpoint->shape.svd),
                    shape_svd_name(shape->svd));
    return OK;
}

Status checkpoint_read_pairs(Model *model, const Checkpoint *checkpoint)
{
    const ModelShape *shape = &checkpoint->shape;
    const json_t *pairs = json_object_get(checkpoint->manifest, "rope_pairs");
    const int64_t count = (int64_t)shape->n_layers * shape->n_kv_heads * shape->rope_pairs;
    if ((int64_t)json_array_size(pairs) != count)
        return fail(BAD_INPUT, "%s/manifest.json: rope_pairs has %zu numbers, not %lld",
                    checkpoint->dir, json_array_size(pairs), (long long)count);
    for (int64_t i = 0; i < count; i++) {
        const json_t *pair = json_array_get(pairs, (size_t)i);
        const json_int_t value = json_is_integer(pair) ? json_integer_value(pair) : -1;
        if (value < 0 || value >= shape->head_dim / 2)
            return fail(BAD_INPUT, "%s/manifest.json: rope_pairs[%lld] is not in 0..%d",
                        checkpoint->dir, (long long)i, shape->head_dim / 2 - 1);
        model->rope_pairs[i] = (int32_t)value;
    }
    return OK;
}

Status checkpoint_read(const Checkpoint *checkpoint, const Partition *partition, float *params,
                       float *m, float *v)
{
    int64_t n_read = 0;
    for (int i = 0; i < checkpoint->n_files; i++) {
        char path[PATH_BYTES];
        const CheckpointShard expected = {.step = checkpoint->progress.step,
                                          .rank = i,
                                          .n_ranks = checkpoint->n_files,
                                          .partition = partition};
        TRY(checkpoint_shard_path(path, checkpoint->dir, i));
        TRY(checkpoint_shard_read(&n_read, path, &expected, params, m, v));
    }
    if (n_read != partition->own_count)
        return fail(BAD_INPUT, "%s: its files hold %lld of %lld parameters", checkpoint->dir,
                    (long long)n_read, (long long)partition->own_count);
    return OK;
}

// ---- directories -------------------------------------------------------------------------------

Status checkpoint_path(char out[PATH_BYTES], const char *run_dir, int step)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoints/step-%08d", step);
    return file_join(out, run_dir, name);
}

bool checkpoint_has_manifest(const char *dir)
{
    char path[PATH_BYTES];
    return file_join(path, dir, "manifest.json") == OK && file_exists(path);
}

void checkpoint_remove(const char *dir)
{
    char path[PATH_BYTES];
    if (file_join(path, dir, "manifest.json") == OK)
        unlink(path);
    DIR *entries = opendir(dir);
    if (entries == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            file_join(path, dir, entry->d_name) == OK)
            unlink(path);
    closedir(entries);
    rmdir(dir);
}

Status checkpoint_begin(const char *dir)
{
    char parent[PATH_BYTES];
    if (file_exists(dir))
        checkpoint_remove(dir);
    TRY(file_make_dirs(dir));
    // The directory's own entry: older checkpoints go once the files in it are on the disk.
    snprintf(parent, sizeof parent, "%s", dir);
    TRY(file_sync_dir(dirname(parent)));
    return file_sync_dir(dirname(parent));
}

static int descending(const void *a, const void *b)
{
    const int x = *(const int *)a, y = *(const int *)b;
    return (x < y) - (x > y);
}

// The step of "step-00000500"; -1: another name.
static int step_of(const char *name)
{
    static const char prefix[] = "step-";
    const char *digits = name + sizeof prefix - 1;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || strlen(digits) < 8 ||
        strlen(digits) > 10 || strspn(digits, "0123456789") != strlen(digits) ||
        (strlen(digits) > 8 && digits[0] == '0')) // a second name of a step
        return -1;
    const long step = strtol(digits, NULL, 10);
    return step <= INT_MAX ? (int)step : -1;
}

Status checkpoint_list(int **steps, int *n_steps, const char *run_dir)
{
    char path[PATH_BYTES];
    *steps = NULL;
    *n_steps = 0;
    TRY(file_join(path, run_dir, "checkpoints"));
    DIR *entries = opendir(path);
    if (entries == NULL)
        return errno == ENOENT ? OK
                               : fail(BAD_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    Status status = OK;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        const int step = step_of(entry->d_name);
        if (step < 0)
            continue;
        int *more = realloc(*steps, (size_t)(*n_steps + 1) * sizeof **steps);
        if (more == NULL) {
            status = fail(FAILED, "%s: no memory for its names", path);
            break;
        }
        *steps = more;
        (*steps)[(*n_steps)++] = step;
    }
    closedir(entries);
    if (status != OK) {
        free(*steps);
        *steps = NULL;
        return status;
    }
    if (*n_steps > 1)
        qsort(*steps, (size_t)*n_steps, sizeof **steps, descending);
    return OK;
}

Status checkpoint_has_any(bool *out, const char *run_dir)
{
    int *steps, n_steps;
    bool has_any = false;
    TRY(checkpoint_list(&steps, &n_steps, run_dir));
    for (int i = 0; i < n_steps && !has_any; i++) {
        char dir[PATH_BYTES];
        has_any = checkpoint_path(dir, run_dir, steps[i]) == OK && checkpoint_has_manifest(dir);
    }
    free(steps);
    *out = has_any;
    return OK;
}

// ---- all of it ---------------------------------------------------------------------------------

Status checkpoint_load_model(Model *out, const Checkpoint *checkpoint)
{
    Partition whole;
    Model model;
    TRY(partition_create(&whole, &checkpoint->shape, 1, 0));
    Status status = model_create(&model, &checkpoint->shape);
    if (status != OK)
        goto release_partition;
    status = checkpoint_read_pairs(&model, checkpoint);
    if (status == OK)
        status = checkpoint_read(checkpoint, &whole, model.params.flat, NULL, NULL);
    if (status == OK)
        *out = model;
    else
        model_release(&model);
release_partition:
    partition_release(&whole);
    return status;
}

Status checkpoint_digest(char out[SHA256_HEX_BYTES], const Checkpoint *checkpoint)
{
    Partition whole;
    TRY(partition_create(&whole, &checkpoint->shape, 1, 0));
    const int64_t count = whole.own_count;
    float *state = calloc((size_t)count * 3, sizeof *state);
    Status status = state != NULL ? OK
                                  : fail(FAILED, "%s: no memory for %lld floats", checkpoint->dir,
                                         (long long)count * 3);
    if (status == OK)
        status = checkpoint_read(checkpoint, &whole, state, state + count, state + 2 * count);
    if (status == OK)
        status = checksum_sha256_bytes(out, state, count * 3 * (int64_t)sizeof *state);
    free(state);
    partition_release(&whole);
    return status;
}
