// Saving. What can be refused is refused before the first byte is written. Then an older
// config.json is removed, and weights, index, tokenizer and, last, config.json are written: a
// directory without config.json is no model, so a save that is cut short never looks like one.
#include "model/hf/hf.h"

#include "model/hf/custom_code.h"
#include "model/hf/hf_config.h"
#include "model/hf/special_tokens.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int64_t default_max_shard_bytes = 5000000000; // transformers' max_shard_size of "5GB"

// What AutoTokenizer and generate() look for beside the weights. A model may have any part of them.
static const char *const copied_files[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
};

// What will be written: the tensors and which file each goes to.
typedef struct SavePlan {
    TensorSpec *specs; // owned; rope pairs first: with wider dtypes first all are aligned
    char (*names)[PARAM_NAME_BYTES]; // owned; what specs[].name points to
    int *shards;                     // owned; ascending from 0
    int n_specs, n_shards;
} SavePlan;

// Also releases a plan whose allocation failed half-way.
static void plan_release(SavePlan *plan)
{
    free(plan->specs);
    free(plan->names);
    free(plan->shards);
    *plan = (SavePlan){0};
}

static int64_t spec_bytes(const TensorSpec *spec)
{
    int64_t bytes = dtype_size_bytes(spec->dtype);
    for (int i = 0; i < spec->n_dims; i++)
        bytes *= spec->dims[i];
    return bytes;
}

// rope_pairs are saved as tensors of int32, so that a converted model is complete in itself.
static void plan_tensors(SavePlan *plan, const Model *model, DType dtype)
{
    const ModelShape *s = &model->shape;
    int n_tensors = params_n_tensors(s);
    for (int l = 0; shape_is_mla(s) && l < s->n_layers; l++) {
        char *name = plan->names[plan->n_specs];
        snprintf(name, PARAM_NAME_BYTES, "model.layers.%d.self_attn.rope_pairs", l);
        plan->specs[plan->n_specs++] = (TensorSpec){
            name, DTYPE_I32, 2, {shape_rope_heads(s), s->rope_pairs}, model_pairs(model, l, 0)};
    }
    for (int t = 0; t < n_tensors; t++) {
        ParamInfo info = params_info(s, t);
        char *name = plan->names[plan->n_specs];
        memcpy(name, info.name, PARAM_NAME_BYTES);
        plan->specs[plan->n_specs++] = (TensorSpec){name,
                                                    dtype,
                                                    info.is_vector ? 1 : 2,
                                                    {info.rows, info.cols},
                                                    model->params.flat + info.offset};
    }
}

// Fills files in the tensors' order up to the limit. A larger tensor has a file of its own.
static void plan_shards(SavePlan *plan, int64_t max_shard_bytes)
{
    int64_t used = 0;
    int shard = 0;
    for (int i = 0; i < plan->n_specs; i++) {
        int64_t bytes = spec_bytes(&plan->specs[i]);
        if (used > 0 && bytes > max_shard_bytes - used) {
            shard++;
            used = 0;
        }
        used += bytes;
        plan->shards[i] = shard;
    }
    plan->n_shards = shard + 1;
}

static Status plan_create(SavePlan *out, const Model *model, DType dtype, int64_t max_shard_bytes)
{
    SavePlan plan = {0};
    size_t capacity = (size_t)(params_n_tensors(&model->shape) + model->shape.n_layers);
    plan.specs = calloc(capacity, sizeof *plan.specs);
    plan.names = calloc(capacity, sizeof *plan.names);
    plan.shards = calloc(capacity, sizeof *plan.shards);
    if (plan.specs == NULL || plan.names == NULL || plan.shards == NULL) {
        plan_release(&plan);
        return fail(FAILED, "no memory for a list of %zu tensors", capacity);
    }
    plan_tensors(&plan, model, dtype);
    plan_shards(&plan, max_shard_bytes);
    *out = plan;
    return OK;
}

// ---- what is refused ---------------------------------------------------------------------------

Status hf_check_target(const char *base_dir, const char *dir)
{
    if (base_dir != NULL && file_is_same(base_dir, dir))
        return fail(BAD_INPUT, "%s: is the base model's directory; name another to save to", dir);
    if (file_exists(dir) && !file_is_dir(dir))
        return fail(BAD_INPUT, "%s: is a file; name a directory to save to", dir);
    return OK;
}

// Loading refuses NaN and infinity, so writing them would lose the model.
static Status check_range(const Model *model, DType dtype)
{
    // Half a step above the largest finite number: from there on values round to infinity.
    const float limit = dtype == DTYPE_F16    ? 65520.0f
                        : dtype == DTYPE_BF16 ? 0x1.ffp127f
                                              : INFINITY;
    int n_tensors = params_n_tensors(&model->shape);
    for (int t = 0; t < n_tensors; t++) {
        ParamInfo info = params_info(&model->shape, t);
        const float *values = model->params.flat + info.offset;
        int64_t count = (int64_t)info.rows * info.cols, bad = count;
#pragma omp parallel for schedule(static) reduction(min : bad) if (count > 65536)
        for (int64_t i = 0; i < count; i++)
            if (!(fabsf(values[i]) < limit) && i < bad)
                bad = i;
        if (bad < count)
            return fail(FAILED, "tensor '%s' has %g at row %lld, column %lld, which %s cannot hold",
                        info.name, (double)values[bad], (long long)(bad / info.cols),
                        (long long)(bad % info.cols), dtype_name(dtype));
    }
    return OK;
}

// ---- writing -----------------------------------------------------------------------------------

static Status remove_file(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    TRY(file_join(path, dir, name));
    if (unlink(path) != 0 && errno != ENOENT)
        return fail(FAILED, "%s: cannot be removed: %s", path, strerror(errno));
    return OK;
}

// Numbers from 1, five digits, as transformers names them.
static void shard_name(char out[64], int shard, int n_shards)
{
    if (n_shards == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05d-of-%05d.safetensors", shard + 1, n_shards);
}

// Files of an earlier save. A reader looks for the single file first and then for the index, so the
// other kind must go; shards of another number would only fill the disk.
static Status remove_leftovers(const char *dir, int n_shards)
{
    Status status = OK;
    TRY(remove_file(dir, n_shards == 1 ? "model.safetensors.index.json" : "model.safetensors"));
    DIR *list = opendir(dir);
    if (list == NULL)
        return fail(FAILED, "%s: cannot be listed: %s", dir, strerror(errno));
    for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
        int shard, of = n_shards, end = 0;
        sscanf(entry->d_name, "model-%5d-of-%5d.safetensors%n", &shard, &of, &end);
        if (end > 0 && entry->d_name[end] == '\0' && of != n_shards)
            TRY_GOTO(close_list, remove_file(dir, entry->d_name));
    }
close_list:
    closedir(list);
    return status;
}

// The index of a model in several files, as transformers writes it: total_size in bytes, and the
// file of each tensor.
static Status write_index(const SavePlan *plan, const char *dir)
{
    char path[PATH_BYTES], name[64];
    TRY(file_join(path, dir, "model.safetensors.index.json"));
    json_t *map = json_object();
    int64_t total_bytes = 0;
    int errors = 0;
    for (int i = 0; i < plan->n_specs; i++) {
        shard_name(name, plan->shards[i], plan->n_shards);
        errors += json_object_set_new(map, plan->specs[i].name, json_string(name));
        total_bytes += spec_bytes(&plan->specs[i]);
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total_bytes,
                              "weight_map", map);
    Status status = index == NULL || errors != 0 ? fail(FAILED, "%s: no memory for the index", path)
                                                 : json_write(index, path);
    json_decref(index);
    return status;
}

static Status write_weights(const SavePlan *plan, const char *dir)
{
    char path[PATH_BYTES], name[64];
    int first = 0;
    for (int shard = 0; shard < plan->n_shards; shard++) {
        int end = first;
        while (end < plan->n_specs && plan->shards[end] == shard)
            end++;
        shard_name(name, shard, plan->n_shards);
        TRY(file_join(path, dir, name));
        TRY(safetensors_write(path, plan->specs + first, end - first));
        first = end;
    }
    if (plan->n_shards > 1)
        TRY(write_index(plan, dir));
    return remove_leftovers(dir, plan->n_shards);
}

// Missing files are skipped; copies are atomic, so an interrupted save leaves no half of a
// tokenizer.
Status hf_copy_tokenizer(const char *base_dir, const char *dir)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    TRY(file_make_dirs(dir));
    for (size_t i = 0; i < sizeof copied_files / sizeof copied_files[0]; i++) {
        TRY(file_join(from, base_dir, copied_files[i]));
        TRY(file_join(to, dir, copied_files[i]));
        if (file_exists(from))
            TRY(file_copy(from, to));
    }
    return OK;
}

static Status write_all(const SavePlan *plan, json_t *config, const ModelShape *shape,
                        const char *base_dir, const char *dir)
{
    char path[PATH_BYTES];
    TRY(file_make_dirs(dir));
    TRY(file_join(path, dir, "config.json"));
    // From here until the last line the directory is not a model.
    TRY(remove_file(dir, "config.json"));
    TRY(write_weights(plan, dir));
    if (base_dir != NULL)
        TRY(hf_copy_tokenizer(base_dir, dir));
    TRY(shape_is_mla(shape) ? custom_code_write(dir) : custom_code_remove(dir));
    TRY(special_tokens_write(config, dir, shape->max_positions));
    return json_write(config, path);
}

// All that can be refused comes before write_all(), which removes the old config.json.
Status hf_save_sharded(const Model *model, const char *base_dir, DType dtype, const char *dir,
                       int64_t max_shard_bytes)
{
    Status status;
    SavePlan plan;
    json_t *config;
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16, "dtype %d", (int)dtype);
    TRY(hf_check_target(base_dir, dir));
    TRY(check_range(model, dtype));
    TRY(hf_config_make(&config, &model->shape, base_dir, dtype));
    TRY_GOTO(release_config, plan_create(&plan, model, dtype, max_shard_bytes));
    status = write_all(&plan, config, &model->shape, base_dir, dir);
    plan_release(&plan);
release_config:
    json_decref(config);
    return status;
}

Status hf_save(const Model *model, const char *base_dir, DType dtype, const char *dir)
{
    return hf_save_sharded(model, base_dir, dtype, dir, default_max_shard_bytes);
}
