// A directory has a handful of files, so they are searched one by one; tensors are found by
// bisection within a file (model/hf/safetensors.h).
#include "model/hf/hf_weights.h"

#include <stdlib.h>
#include <string.h>

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
    return OK;
}

// Every file that the index names is opened now, so that a missing one is reported before any
// tensor is read.
static Status open_shards(HfWeights *weights, const char *dir)
{
    const char *tensor;
    json_t *value;
    TRY(json_read(&weights->index, weights->path));
    weights->weight_map = json_object_get(weights->index, "weight_map");
    if (!json_is_object(weights->weight_map))
        return fail(BAD_INPUT, "%s: 'weight_map' is not an object", weights->path);
    json_object_foreach(weights->weight_map, tensor, value)
    {
        char path[PATH_BYTES];
        const char *name = json_string_value(value);
        // A path would read files outside of the model's directory.
        if (name == NULL || name[0] == '\0' || strchr(name, '/') != NULL)
            return fail(BAD_INPUT, "%s: '%.200s' is not given the name of a file beside the index",
                        weights->path, tensor);
        if (find_file(weights, name) != NULL)
            continue;
        TRY(file_join(path, dir, name));
        if (!file_exists(path))
            return fail(BAD_INPUT, "%s: the file is missing; %s names it for '%.200s'", path,
                        base_name(weights->path), tensor);
        TRY(add_file(weights, path));
    }
    return OK;
}

// The single file goes first, as in transformers.
static Status open_files(HfWeights *weights, const char *dir)
{
    char other[PATH_BYTES];
    if (!file_is_dir(dir))
        return fail(BAD_INPUT, "%s: not a directory with a Hugging Face model", dir);
    TRY(file_join(weights->path, dir, "model.safetensors"));
    if (file_exists(weights->path))
        return add_file(weights, weights->path);
    TRY(file_join(weights->path, dir, "model.safetensors.index.json"));
    if (file_exists(weights->path))
        return open_shards(weights, dir);
    static const char *const pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    for (int i = 0; i < 2; i++) {
        TRY(file_join(other, dir, pickles[i]));
        if (file_exists(other))
            return fail(BAD_INPUT,
                        "%s: not supported; save the model as safetensors (in transformers: "
                        "save_pretrained)",
                        other);
    }
    return fail(BAD_INPUT, "%s: has neither model.safetensors nor model.safetensors.index.json",
                dir);
}

Status hf_weights_open(HfWeights *out, const char *dir)
{
    HfWeights weights = {.n_files = 0};
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
    json_decref(weights->index);
    *weights = (HfWeights){.n_files = 0};
}

// A missing tensor is not an error here: which tensors a model needs is the caller's knowledge (a
// tied head has none).
Status hf_weights_find(const SafeTensors **out, const HfWeights *weights, const char *name)
{
    if (weights->index == NULL) {
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
