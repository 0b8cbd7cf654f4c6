// From the run's state to JSON, and from JSON to text with its checksum at the end.
#include "train/checkpoint/manifest.h"

#include "base/checksum.h"
#include "base/file.h"
#include "train/checkpoint/checkpoint_shard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Counts what could not be added to an object or array, for want of memory or because a text is not
// UTF-8: a manifest without one of its members must not be written.
typedef int Errors;

// Owned by the caller; NULL if something is missing in it. jansson's setters accept NULL as a value
// and return -1, so errors add up to a number that is not 0.
static json_t *whole(json_t *json, Errors errors)
{
    if (errors == 0)
        return json;
    json_decref(json);
    return NULL;
}

static json_t *shape_to_json(const ModelShape *shape)
{
    json_t *object = json_object();
    Errors errors = 0;
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        errors += json_object_set_new(object, shape_fields[i].name,
                                      shape_field_to_json(&shape_fields[i], shape));
    return whole(object, errors);
}

// For people and other programs: where each tensor is in the flat vector, in floats.
static json_t *tensors_to_json(const ModelShape *shape)
{
    json_t *array = json_array();
    Errors errors = 0;
    for (int i = 0; i < params_n_tensors(shape); i++) {
        ParamInfo info = params_info(shape, i);
        errors += json_array_append_new(array, json_pack("{s:s, s:I, s:i, s:i}", "name", info.name,
                                                         "offset", (json_int_t)info.offset, "rows",
                                                         info.rows, "cols", info.cols));
    }
    return whole(array, errors);
}

// All layers and KV heads in one array, in the order of the model's own.
static json_t *pairs_to_json(const Model *model)
{
    const ModelShape *s = &model->shape;
    json_t *array = json_array();
    Errors errors = 0;
    const int64_t count = model_n_pairs(s);
    for (int64_t i = 0; i < count; i++)
        errors += json_array_append_new(array, json_integer(model->rope_pairs[i]));
    return whole(array, errors);
}

// The names follow from the index; they are written for readers in other languages.
static json_t *files_to_json(const CheckpointFile *files, int n_files)
{
    json_t *array = json_array();
    Errors errors = 0;
    for (int i = 0; i < n_files; i++) {
        char name[CHECKPOINT_SHARD_NAME_BYTES];
        checkpoint_shard_name(name, i);
        errors += json_array_append_new(array, json_pack("{s:s, s:I, s:I}", "name", name, "bytes",
                                                         (json_int_t)files[i].size_bytes, "crc32",
                                                         (json_int_t)files[i].crc32));
    }
    return whole(array, errors);
}

static Errors set_text(json_t *object, const char *key, const char *text)
{
    return json_object_set_new(object, key, text != NULL ? json_string(text) : json_null());
}

// JSON has no NaN: what was not measured is left out.
static Errors set_real(json_t *object, const char *key, double value)
{
    return isfinite(value) ? json_object_set_new(object, key, json_real(value)) : 0;
}

static json_t *texts_to_json(char *const *texts, int n)
{
    json_t *array = json_array();
    Errors errors = 0;
    for (int i = 0; i < n; i++)
        errors += json_array_append_new(array, json_string(texts[i]));
    return whole(array, errors);
}

static json_t *spikes_to_json(const SpikeHistory *spikes)
{
    return json_pack("{s:f, s:I, s:I, s:I}", "mean", spikes->mean, "n_accepted",
                     (json_int_t)spikes->n_accepted, "n_skipped", (json_int_t)spikes->n_skipped,
                     "n_skipped_in_row", (json_int_t)spikes->n_skipped_in_row);
}

static Errors set_state(json_t *root, const RunState *state)
{
    Errors errors = json_object_set_new(root, "valid_step", json_integer(state->valid_step));
    errors += set_real(root, "loss", state->loss);
    errors += set_real(root, "grad_norm", state->grad_norm);
    errors += set_real(root, "valid_loss", state->valid_loss);
    if (state->valid_set[0] != '\0')
        errors += set_text(root, "validation_set", state->valid_set);
    return errors + json_object_set_new(root, "spikes", spikes_to_json(&state->spikes));
}

// Only what a resume or an export needs to know; the whole config is in config.yaml beside.
static Errors set_config(json_t *root, const Config *config)
{
    Errors errors =
        set_text(root, "reduce_dtype", config_reduce_dtype_name(config->train.reduce_dtype));
    errors += set_text(root, "compute", compute_name(config->train.compute));
    errors += set_text(root, "name", config->run.name);
    errors += set_text(root, "base", config->model.base);
    if (config->train.n_trainable > 0)
        errors += json_object_set_new(
            root, "trainable", texts_to_json(config->train.trainable, config->train.n_trainable));
    if (config->model.convert.given)
        errors += set_text(root, "rope", rope_strategy_name(config->model.convert.rope));
    return errors + set_text(root, "tokenizer", config->model.init.tokenizer);
}

// The order is for people: what they look for comes before the long lists.
static json_t *manifest_to_json(const RunState *state, const Model *model,
                                const CheckpointContext *context, const CheckpointFile *files,
                                int n_files)
{
    const Config *config = context->config;
    const TrainConfig *train = &config->train;
    const int64_t samples = (int64_t)state->step * train->global_batch;
    json_t *root = json_pack(
        "{s:s, s:i, s:i, s:I, s:I, s:i, s:i, s:i}", "format", MANIFEST_FORMAT, "version",
        MANIFEST_VERSION, "step", state->step, "next_sample", (json_int_t)samples, "tokens",
        (json_int_t)samples * config->data.seq_len, "global_batch", train->global_batch,
        "micro_batch", train->micro_batch, "sum_groups", train->sum_groups);
    Errors errors = set_state(root, state) + set_config(root, config);
    errors += set_text(root, "tokenizer_sha256", context->tokenizer_sha256);
    errors += json_object_set_new(root, "data", json_deep_copy(context->data_fingerprint));
    errors += json_object_set_new(root, "shape", shape_to_json(&model->shape));
    errors += json_object_set_new(root, "rope_pairs", pairs_to_json(model));
    errors += json_object_set_new(root, "tensors", tensors_to_json(&model->shape));
    errors += json_object_set_new(root, "files", files_to_json(files, n_files));
    return whole(root, errors);
}

// jansson ends an indented object with "\n}". In its place come a comma, a newline, and the line of
// the checksum, which covers all before that line.
Status manifest_format(char **out, int64_t *size_bytes, json_t *root)
{
    static const char end[] = "\n}", more[] = ",\n";
    const size_t seal_bytes =
        strlen(MANIFEST_BEFORE_CHECKSUM) + SHA256_HEX_BYTES + strlen(MANIFEST_AFTER_CHECKSUM);
    char checksum[SHA256_HEX_BYTES];
    // Also on a manifest that was read and is written again.
    json_object_del(root, "checksum");
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    if (text == NULL)
        return fail(FAILED, "no memory for the text of a manifest");
    const size_t covered = strlen(text) - strlen(end) + strlen(more);
    CHECK(strcmp(text + strlen(text) - strlen(end), end) == 0,
          "an object that ends in another way");
    char *larger = realloc(text, covered + seal_bytes);
    Status status;
    if (larger == NULL) {
        status = fail(FAILED, "no memory for the text of a manifest");
        goto free_text;
    }
    text = larger;
    memcpy(text + covered - strlen(more), more, sizeof more);
    TRY_GOTO(free_text, checksum_sha256_bytes(checksum, text, (int64_t)covered));
    *size_bytes =
        (int64_t)covered + snprintf(text + covered, seal_bytes, "%s%s%s", MANIFEST_BEFORE_CHECKSUM,
                                    checksum, MANIFEST_AFTER_CHECKSUM);
    *out = text;
    return OK;
free_text:
    free(text);
    return status;
}

// file_write() writes under a temporary name, syncs and renames: this is the moment at which the
// files become a checkpoint.
Status manifest_write(const char *path, const RunState *state, const Model *model,
                      const CheckpointContext *context, const CheckpointFile *files, int n_files)
{
    char *text;
    int64_t size_bytes;
    Status status;
    json_t *root = manifest_to_json(state, model, context, files, n_files);
    if (root == NULL)
        return fail(FAILED, "%s: no memory, or a name in the config is not UTF-8", path);
    TRY_GOTO(release_root, manifest_format(&text, &size_bytes, root));
    status = file_write(path, text, size_bytes);
    free(text);
release_root:
    json_decref(root);
    return status;
}
