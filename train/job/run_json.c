// run.json is written anew by every process of a run, whole, before its first step; set_exported()
// alone changes a member of it later. A run.json that cannot be read costs what only it knew (the
// original model's loss) and stops no training.
#include "train/job/run_json.h"

#include "base/file.h"
#include "base/json.h"
#include "train/distill/distill.h"
#include "train/plan/compute_check.h"

#include <math.h>
#include <string.h>

// What an earlier process of the run knew and this one cannot measure, and the list of steps at
// which a process started. Errors of jansson's setters are not checked: a member that is lost costs
// a figure in a report.
static void keep_earlier(json_t *root, const RunDir *dir, const char *path)
{
    json_t *earlier = NULL, *resumed = NULL;
    if (dir->is_resumed && file_exists(path) && json_read(&earlier, path) == OK) {
        static const char *const kept[] = {"original_valid_loss", "original_validation_set",
                                           "exported_step", "validated_step"};
        for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
            json_t *value = json_object_get(earlier, kept[i]);
            if (value != NULL)
                json_object_set(root, kept[i], value);
        }
        resumed = json_incref(json_object_get(earlier, "resumed_steps"));
    }
    if (!json_is_array(resumed)) {
        json_decref(resumed);
        resumed = json_array();
    }
    // Also where a process that left no checkpoint has resumed from this step before.
    if (dir->is_resumed)
        json_array_append_new(resumed, json_integer(dir->checkpoint.manifest.state.step));
    json_object_set_new(root, "resumed_steps", resumed);
    json_decref(earlier);
}

// The members that `compare` and `inspect` read (train/report/report_run.c); members added later
// are optional there. "cache" members count numbers, not bytes.
static json_t *describe(const RunDescription *description)
{
    const Config *config = description->config;
    const Plan *plan = description->plan;
    const ModelShape *shape = &plan->shape;
    const bool is_mla = config->model.convert.given;
    char products[COMPUTE_TEXT_BYTES];
    return json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:i, s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:s}",
        "format", "mha2mla-run", "name", config->run.name, "attention", is_mla ? "mla" : "original",
        "d_kv", shape->d_kv, "rope_pairs", shape->rope_pairs, "head_dim", shape->head_dim, "rope",
        is_mla ? rope_strategy_name(config->model.convert.rope) : "all", "svd",
        is_mla ? shape_svd_name(shape->svd) : "none", "seq_len", config->data.seq_len, "parameters",
        (json_int_t)params_count(shape), "cache_numbers_per_token",
        (json_int_t)shape_cache_numbers(shape), "original_cache_numbers_per_token",
        (json_int_t)shape_cache_numbers(&plan->original), "tokens_per_step",
        (json_int_t)config->train.global_batch * config->data.seq_len, "steps",
        (json_int_t)config->train.steps, "ranks", plan->n_ranks, "threads", plan->n_threads,
        "products", compute_describe(products, config->train.compute));
}

// What the layers read before the first step, and what their steps trained on: the same windows
// again and again.
static json_t *describe_distillation(const Config *config)
{
    const DistillConfig *distill = &config->distill;
    const int T = config_distill_len(config);
    return json_pack("{s:i, s:i, s:i, s:I, s:I}", "steps", distill->steps, "windows",
                     distill->windows, "window_len", T, "tokens",
                     (json_int_t)distill_tokens(distill, T), "trained_tokens",
                     (json_int_t)distill_trained_tokens(distill, T));
}

// Rank 0 alone, as the next two. json_write() renames into place, so a reader never sees half of
// it.
Status run_json_write(const RunDir *dir, const RunDescription *description)
{
    char path[PATH_BYTES];
    TRY(file_join(path, dir->path, "run.json"));
    json_t *root = describe(description);
    if (root == NULL)
        return fail(FAILED, "run.json: no memory, or the run's name is not UTF-8");
    if (!isnan(description->original_loss)) {
        json_object_set_new(root, "original_valid_loss", json_real(description->original_loss));
        json_object_set_new(root, "original_validation_set",
                            json_string(description->validation_set));
    }
    if (config_distills(description->config))
        json_object_set_new(root, "distill", describe_distillation(description->config));
    const double tokens = description->config->data.pretraining_tokens;
    if (tokens > 0)
        json_object_set_new(root, "pretraining_tokens", json_integer((json_int_t)tokens));
    if (shape_is_shared(&description->plan->shape))
        json_object_set_new(root, "latent", json_integer(description->plan->shape.latent));
    keep_earlier(root, dir, path);
    json_object_set(root, "config", description->history->config);
    json_object_set(root, "config_changes", description->history->changes);
    const Status status = json_write(root, path);
    json_decref(root);
    return status;
}

Status run_json_set_exported(const RunDir *dir, int step, int valid_step)
{
    char path[PATH_BYTES];
    json_t *root;
    TRY(file_join(path, dir->path, "run.json"));
    TRY(json_read(&root, path));
    json_object_set_new(root, "exported_step", json_integer(step));
    json_object_set_new(root, "validated_step", json_integer(valid_step));
    const Status status = json_write(root, path);
    json_decref(root);
    return status;
}

// A new reference; NULL: it is not there or cannot be read.
static json_t *read_file(const RunDir *dir, const char *name)
{
    char path[PATH_BYTES];
    json_t *root = NULL;
    if (file_join(path, dir->path, name) != OK || !file_exists(path) ||
        json_read(&root, path) != OK)
        return NULL;
    return root;
}

static bool has_step(const RunDir *dir, const char *key, int step)
{
    json_t *root = read_file(dir, "run.json");
    const json_t *value = json_object_get(root, key);
    const bool is_same = json_is_integer(value) && json_integer_value(value) == step;
    json_decref(root);
    return is_same;
}

// All must hold: config.json, which hf_save() writes last and which says what the numbers are, and
// the step it was exported at, as an earlier export of a shorter run may lie there.
bool run_json_is_exported(const RunDir *dir, int step, DType dtype)
{
    json_t *config = read_file(dir, "model/config.json");
    const char *name = json_string_value(json_object_get(config, "torch_dtype"));
    if (name == NULL)
        name = json_string_value(json_object_get(config, "dtype"));
    const bool is_same_type = name != NULL && strcmp(name, dtype_torch_name(dtype)) == 0;
    json_decref(config);
    return is_same_type && has_step(dir, "exported_step", step);
}

bool run_json_is_validated(const RunDir *dir, int step)
{
    return has_step(dir, "validated_step", step);
}

static bool is_name(const json_t *text, const char *name)
{
    return json_is_string(text) && strcmp(json_string_value(text), name) == 0;
}

bool run_json_has_name(const RunDir *dir, const char *name)
{
    json_t *root = read_file(dir, "run.json");
    const json_t *changes = json_object_get(root, "config_changes");
    bool has_name = is_name(json_object_get(root, "name"), name);
    for (size_t i = 0; i < json_array_size(changes) && !has_name; i++) {
        const json_t *change = json_array_get(changes, i);
        has_name = is_name(json_object_get(change, "key"), "run.name") &&
                   (is_name(json_object_get(change, "old"), name) ||
                    is_name(json_object_get(change, "new"), name));
    }
    json_decref(root);
    return has_name;
}
