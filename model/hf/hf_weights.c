// A directory has a handful of files, so they are searched one by one; tensors are found by
// bisection within a file (model/hf/safetensors.h).
#include "model/hf/hf_weights.h"

#include "base/log.h"
#include "base/paths.h"
#include "model/hf/tensor_list.h"
#include "model/hf/tensor_name.h"
#include "model/kernels/finite.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char hf_head_name[] = "lm_head.weight", hf_embed_name[] = "model.embed_tokens.weight";

// Like basename(3), which may write into its argument.
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static const SafeTensors *find_file(const HfWeights *weights, const char *name)
{
    for (int i = 0; i < weights->n_files; i++)
        if (strcmp(base_name(weights->files[i].path), name) == 0)
            return &weights->files[i];
    return NULL;
}

// Gives a tensor the name that the model has for it.
static Status rename_tensor(const char **name, void *context, const SafeTensors *file)
{
    HfWeights *weights = context;
    char own[PARAM_NAME_BYTES];
    TRY(tensor_name_unwrap(own, *name, file->path));
    if (own[0] == '\0' || strcmp(own, *name) == 0)
        return OK;
    json_t *text = json_string(own);
    if (json_array_append_new(weights->names, text) != 0)
        return fail(FAILED, "%s: no memory for the names of its tensors", file->path);
    *name = json_string_value(text);
    return OK;
}

// A file counts only once it is open, so hf_weights_close() never sees half of one.
static Status add_file(HfWeights *weights, const char *path)
{
    size_t bytes = (size_t)(weights->n_files + 1) * sizeof *weights->files;
    SafeTensors *files = realloc(weights->files, bytes);
    if (files == NULL)
        return fail(FAILED, "%s: no memory for the list of files", path);
    weights->files = files;
    TRY(safetensors_open(&files[weights->n_files], path));
    weights->n_files++;
    return safetensors_rename(&files[weights->n_files - 1], rename_tensor, weights);
}

// Puts a tensor of a shard into the map. `where` names what says so.
static Status map_tensor(HfWeights *weights, const char *tensor, const char *file,
                         const char *where)
{
    if (json_object_get(weights->weight_map, tensor) != NULL)
        return fail(BAD_INPUT, "%s: two tensors are '%.200s'", where, tensor);
    return json_object_set_new(weights->weight_map, tensor, json_string(file)) == 0
               ? OK
               : fail(FAILED, "%s: no memory for the map of tensors", where);
}

// The file that the index names for a tensor, opened with the first tensor of it.
static Status open_indexed(HfWeights *weights, const char *dir, const char *tensor,
                           const json_t *value)
{
    char path[PATH_BYTES], own[PARAM_NAME_BYTES];
    const char *name = json_string_value(value);
    while (name != NULL && strncmp(name, "./", 2) == 0)
        name += 2;
    // A path would read files outside of the model's directory.
    if (name == NULL || name[0] == '\0' || strchr(name, '/') != NULL)
        return fail(BAD_INPUT, "%s: '%.200s' is not given the name of a file beside the index",
                    weights->path, tensor);
    TRY(tensor_name_unwrap(own, tensor, weights->path));
    TRY(map_tensor(weights, own[0] != '\0' ? own : tensor, name, weights->path));
    if (find_file(weights, name) != NULL)
        return OK;
    TRY(file_join(path, dir, name));
    if (!file_exists(path))
        return fail(BAD_INPUT, "%s: the file is missing; %s names it for '%.200s'", path,
                    base_name(weights->path), tensor);
    return add_file(weights, path);
}

// Every file that the index names is opened now, so that a missing one is reported before any
// tensor is read.
static Status open_index(HfWeights *weights, const char *dir)
{
    const char *tensor;
    json_t *index, *value;
    Status status = OK;
    TRY(json_read(&index, weights->path));
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map)) {
        status = fail(BAD_INPUT, "%s: 'weight_map' is not an object", weights->path);
        goto release_index;
    }
    weights->weight_map = json_object();
    json_object_foreach(map, tensor, value)
    {
        TRY_GOTO(release_index, open_indexed(weights, dir, tensor, value));
    }
release_index:
    json_decref(index);
    return status;
}

// The number of shards that their names speak of; 0: there are none.
static Status count_shards(int *out, const char *dir)
{
    Status status = OK;
    int n_shards = 0;
    DIR *list = opendir(dir);
    if (list == NULL)
        return fail(BAD_INPUT, "%s: cannot be listed: %s", dir, strerror(errno));
    for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
        int shard, of;
        if (!shard_file_parse(&shard, &of, entry->d_name))
            continue;
        if (n_shards != 0 && of != n_shards) {
            status = fail(BAD_INPUT,
                          "%s: has shards of %d and of %d files, and no "
                          "model.safetensors.index.json; remove those of the other model",
                          dir, n_shards < of ? n_shards : of, n_shards < of ? of : n_shards);
            goto close_list;
        }
        n_shards = of;
    }
    *out = n_shards;
close_list:
    closedir(list);
    return status;
}

// Shards without their index: the names say how many there are, the files which tensors.
static Status open_shards(HfWeights *weights, const char *dir, int n_shards)
{
    weights->weight_map = json_object();
    snprintf(weights->path, sizeof weights->path, "%s", dir);
    for (int shard = 0; shard < n_shards; shard++) {
        char path[PATH_BYTES], name[SHARD_NAME_BYTES];
        shard_file_name(name, shard, n_shards);
        TRY(file_join(path, dir, name));
        if (!file_exists(path))
            return fail(BAD_INPUT, "%s: the file is missing; others of the %d are there", path,
                        n_shards);
        TRY(add_file(weights, path));
        const SafeTensors *file = &weights->files[weights->n_files - 1];
        for (int t = 0; t < file->n_tensors; t++)
            TRY(map_tensor(weights, file->tensors[t].name, name, path));
    }
    return OK;
}

// What is there instead of weights that can be read.
static Status fail_no_weights(const char *dir)
{
    static const char *const pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    for (int i = 0; i < 2; i++) {
        char path[PATH_BYTES];
        TRY(file_join(path, dir, pickles[i]));
        if (file_exists(path))
            return fail(BAD_INPUT,
                        "%s: not supported; save the model as safetensors (in transformers: "
                        "save_pretrained)",
                        path);
    }
    return fail(BAD_INPUT, "%s: has neither model.safetensors nor model.safetensors.index.json",
                dir);
}

// The single file goes first, as in transformers.
static Status open_files(HfWeights *weights, const char *dir)
{
    int n_shards;
    if (!file_is_dir(dir))
        return fail(BAD_INPUT, "%s: not a directory with a Hugging Face model", dir);
    TRY(file_join(weights->path, dir, "model.safetensors"));
    if (file_exists(weights->path))
        return add_file(weights, weights->path);
    TRY(file_join(weights->path, dir, "model.safetensors.index.json"));
    if (file_exists(weights->path))
        return open_index(weights, dir);
    TRY(count_shards(&n_shards, dir));
    return n_shards > 0 ? open_shards(weights, dir, n_shards) : fail_no_weights(dir);
}

Status hf_weights_open(HfWeights *out, const char *dir)
{
    HfWeights weights = {.names = json_array()};
    Status status;
    TRY_GOTO(close_weights, open_files(&weights, dir));
    *out = weights;
    return OK;
close_weights:
    hf_weights_close(&weights);
    return status;
}

void hf_weights_close(HfWeights *weights)
{
    for (int i = 0; i < weights->n_files; i++)
        safetensors_close(&weights->files[i]);
    free(weights->files);
    json_decref(weights->weight_map);
    json_decref(weights->names);
    *weights = (HfWeights){.n_files = 0};
}

// A missing tensor is not an error here: which tensors a model needs is the caller's knowledge (a
// tied head has none).
Status hf_weights_find(const SafeTensors **out, const HfWeights *weights, const char *name)
{
    if (weights->weight_map == NULL) {
        *out = safetensors_find(&weights->files[0], name) != NULL ? &weights->files[0] : NULL;
        return OK;
    }
    const char *file_name = json_string_value(json_object_get(weights->weight_map, name));
    if (file_name == NULL) {
        *out = NULL;
        return OK;
    }
    const SafeTensors *file = find_file(weights, file_name);
    CHECK(file != NULL, "shard %s was not opened", file_name);
    if (safetensors_find(file, name) == NULL)
        return fail(BAD_INPUT, "%s: tensor '%.200s' is missing; %s says it is in this file",
                    file->path, name, base_name(weights->path));
    *out = file;
    return OK;
}

Status hf_weights_read(float *values, const HfWeights *weights, const char *name, const int *dims,
                       int n_dims)
{
    const SafeTensors *file;
    int64_t count = 1;
    TRY(hf_weights_find(&file, weights, name));
    if (file == NULL)
        return fail(BAD_INPUT, "%s: tensor '%s' is missing", weights->path, name);
    TRY(safetensors_read_f32(file, name, dims, n_dims, values));
    for (int i = 0; i < n_dims; i++)
        count *= dims[i];
    const int64_t bad = finite_find_nonfinite(values, count), cols = n_dims > 1 ? dims[1] : 1;
    if (bad == count)
        return OK;
    return fail(BAD_INPUT,
                "%s: tensor '%s' has %g at row %lld, column %lld; the file is damaged or was saved "
                "from a run that diverged",
                file->path, name, (double)values[bad], (long long)(bad / cols),
                (long long)(bad % cols));
}

// transformers 5 keeps both matrices where they differ, older versions one of them: which model the
// files mean is for their owner to say. A copy of the embedding is common, and harmless.
Status hf_weights_check_tied(const HfWeights *weights, const char *dir)
{
    const SafeTensors *head_file, *embed_file;
    bool is_copy = true;
    TRY(hf_weights_find(&head_file, weights, hf_head_name));
    TRY(hf_weights_find(&embed_file, weights, hf_embed_name));
    if (head_file == NULL || embed_file == NULL)
        return OK;
    TRY(safetensors_are_equal(&is_copy, embed_file, hf_embed_name, head_file, hf_head_name));
    if (is_copy)
        return OK;
    return fail(BAD_INPUT,
                "%s: 'tie_word_embeddings' is true, but '%s' and '%s' are stored and differ; set "
                "it to false in config.json to use both, as transformers 5 does",
                dir, hf_head_name, hf_embed_name);
}

static bool is_redundant(const TensorInfo *tensor, bool is_tied)
{
    return tensor->size_bytes == 0 || name_ends_with(tensor->name, ".rotary_emb.inv_freq") ||
           name_ends_with(tensor->name, ".self_attn.rope_pairs") ||
           (is_tied && strcmp(tensor->name, hf_head_name) == 0);
}

void hf_weights_warn(const HfWeights *weights, int n_read, bool is_tied, const char *dir)
{
    int n_present = 0;
    const char *bias = NULL;
    for (int f = 0; f < weights->n_files; f++) {
        for (int t = 0; t < weights->files[f].n_tensors; t++) {
            const TensorInfo *tensor = &weights->files[f].tensors[t];
            n_present += !is_redundant(tensor, is_tied);
            if (bias == NULL && name_ends_with(tensor->name, ".bias"))
                bias = tensor->name;
        }
    }
    if (n_present > n_read)
        log_warn("%s: %d tensors are not part of a Llama model and are ignored%s%s", dir,
                 n_present - n_read, bias != NULL ? ", e.g. " : "", bias != NULL ? bias : "");
}
