// Loading. The headers of all files are checked against the whole parameter table before memory is
// allocated for the weights: a config that does not belong to them is refused at once.
#include "model/hf/hf.h"

#include "base/progress.h"
#include "model/hf/hf_config.h"
#include "model/hf/hf_weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MISSING_SHOWN = 3 };

// dims = those of a tensor as the files have them, where a vector has one; returns their number.
static int dims_of(int dims[2], const ParamInfo *info)
{
    dims[0] = info->rows;
    dims[1] = info->cols;
    return info->is_vector ? 1 : 2;
}

// The file of a tensor, NULL if it is missing, and its name there. Where one matrix is embedding
// and head, either name may be the one that it is stored under.
static Status find_tensor(const SafeTensors **file, const char **name, const HfWeights *weights,
                          const ModelShape *shape, const char *wanted)
{
    *name = wanted;
    TRY(hf_weights_find(file, weights, wanted));
    if (*file != NULL || !shape->tied_head || strcmp(wanted, hf_embed_name) != 0)
        return OK;
    *name = hf_head_name;
    return hf_weights_find(file, weights, hf_head_name);
}

// Names the first missing tensors in one message: which ones says what went wrong.
static Status check_present(const HfWeights *weights, const ModelShape *shape, const char *dir)
{
    const char *stored;
    char names[MISSING_SHOWN * (PARAM_NAME_BYTES + 2)] = "";
    int n_tensors = params_n_tensors(shape), n_missing = 0;
    bool lacks_head = false;
    for (int t = 0; t < n_tensors && n_missing <= MISSING_SHOWN; t++) {
        const SafeTensors *file;
        ParamInfo info = params_info(shape, t);
        TRY(find_tensor(&file, &stored, weights, shape, info.name));
        if (file != NULL)
            continue;
        lacks_head = strcmp(info.name, hf_head_name) == 0;
        if (n_missing++ < MISSING_SHOWN) {
            size_t used = strlen(names);
            snprintf(names + used, sizeof names - used, "%s%s", used > 0 ? ", " : "", info.name);
        }
    }
    if (n_missing == 0)
        return OK;
    return fail(BAD_INPUT, "%s: missing in the weights: %s%s%s", dir, names,
                n_missing > MISSING_SHOWN ? " and more" : "",
                lacks_head && n_missing == 1
                    ? "; if the head is the embedding, config.json must say tie_word_embeddings"
                    : "");
}

struct HfSource {
    ModelShape shape;
    HfWeights weights; // owned
};

static Status read_tensor(const void *context, const ParamInfo *info, float *values)
{
    const HfSource *source = context;
    const SafeTensors *file;
    const char *stored;
    int dims[2];
    const int n_dims = dims_of(dims, info);
    TRY(find_tensor(&file, &stored, &source->weights, &source->shape, info->name));
    return hf_weights_read(values, &source->weights, stored, dims, n_dims);
}

WeightSource hf_source_weights(const HfSource *source)
{
    return (WeightSource){&source->shape, source, read_tensor};
}

static Status read_weights(Model *model, const HfSource *source)
{
    const ModelShape *shape = &model->shape;
    const int n_tensors = params_n_tensors(shape);
    ProgressMeter meter = progress_start("reading the weights", "numbers", params_count(shape));
    Status status = OK;
    for (int t = 0; t < n_tensors; t++) {
        ParamInfo info = params_info(shape, t);
        TRY_GOTO(end, read_tensor(source, &info, model->params.flat + info.offset));
        progress_show(&meter, info.offset + (int64_t)info.rows * info.cols);
    }
end:
    progress_end(&meter);
    return status;
}

static Status read_layer_pairs(int32_t *pairs, const ModelShape *shape, int layer,
                               const HfWeights *weights)
{
    char name[PARAM_NAME_BYTES];
    const SafeTensors *file;
    int K = shape_rope_heads(shape), P = shape->rope_pairs;
    snprintf(name, sizeof name, "model.layers.%d.self_attn.rope_pairs", layer);
    TRY(hf_weights_find(&file, weights, name));
    if (file == NULL)
        return fail(BAD_INPUT,
                    "%s: tensor '%s' is missing: the files do not say which RoPE pairs were kept; "
                    "convert the original model with mha2mla convert",
                    weights->path, name);
    TRY(safetensors_read_i32(file, name, (int[]){K, P}, 2, pairs));
    for (int i = 0; i < K * P; i++) {
        // No overflow: pairs[i - 1] was in range.
        if (pairs[i] < model_least_pair(shape, pairs, i) || pairs[i] >= shape->head_dim / 2)
            return fail(BAD_INPUT,
                        "%s: tensor '%s' has %d at KV head %d, pair %d: pairs ascend from 0 to %d",
                        file->path, name, (int)pairs[i], i / P, i % P, shape->head_dim / 2 - 1);
    }
    return OK;
}

static Status read_pairs(int32_t *pairs, const ModelShape *shape, const HfWeights *weights)
{
    int64_t per_layer = model_n_pairs(shape) / shape->n_layers;
    for (int l = 0; l < shape->n_layers; l++) {
        int32_t *of_layer = pairs + l * per_layer;
        if (shape_is_mla(shape))
            TRY(read_layer_pairs(of_layer, shape, l, weights));
        else
            for (int64_t i = 0; i < per_layer; i++)
                of_layer[i] = (int32_t)(i % shape->rope_pairs);
    }
    return OK;
}

void hf_source_warn(const HfSource *source, const char *dir)
{
    hf_config_warn(dir);
    hf_weights_warn(&source->weights, params_n_tensors(&source->shape), source->shape.tied_head,
                    dir);
}

Status hf_source_open(HfSource **out, const char *dir)
{
    Status status;
    HfSource *source = calloc(1, sizeof *source);
    if (source == NULL)
        return fail(FAILED, "%s: no memory for its description", dir);
    TRY_GOTO(free_source, hf_load_shape(&source->shape, dir));
    TRY_GOTO(free_source, hf_weights_open(&source->weights, dir));
    TRY_GOTO(close_source, check_present(&source->weights, &source->shape, dir));
    if (source->shape.tied_head)
        TRY_GOTO(close_source, hf_weights_check_tied(&source->weights, dir));
    *out = source;
    return OK;
close_source:
    hf_weights_close(&source->weights);
free_source:
    free(source);
    return status;
}

// F32 holds what both 16-bit formats hold; F64 is read as it.
Status hf_source_dtype(DType *out, const HfSource *source)
{
    DType widest = DTYPE_OTHER;
    const int n_tensors = params_n_tensors(&source->shape);
    for (int t = 0; t < n_tensors; t++) {
        const ParamInfo info = params_info(&source->shape, t);
        const SafeTensors *file;
        const char *stored;
        if (info.is_vector)
            continue;
        TRY(find_tensor(&file, &stored, &source->weights, &source->shape, info.name));
        const TensorInfo *tensor = safetensors_find(file, stored);
        const DType dtype = dtype_of_memory(tensor->dtype);
        if (!dtype_is_float(dtype))
            return fail(BAD_INPUT,
                        "%s: tensor '%s' has dtype %s, supported are F32, F16, BF16 and F64",
                        file->path, stored, tensor->dtype_text);
        widest = widest == DTYPE_OTHER || widest == dtype ? dtype : DTYPE_F32;
    }
    *out = widest;
    return OK;
}

Status hf_source_rope_pairs(int32_t *pairs, const HfSource *source)
{
    return read_pairs(pairs, &source->shape, &source->weights);
}

void hf_source_close(HfSource *source)
{
    if (source != NULL)
        hf_weights_close(&source->weights);
    free(source);
}

static Status read_all(Model *model, const HfSource *source, const char *dir)
{
    TRY(read_pairs(model->rope_pairs, &source->shape, &source->weights));
    TRY(read_weights(model, source));
    hf_source_warn(source, dir);
    return OK;
}

Status hf_load(Model *out, const char *dir)
{
    HfSource *source;
    Model model;
    Status status;
    TRY(hf_source_open(&source, dir));
    TRY_GOTO(close_source, model_create(&model, &source->shape));
    TRY_GOTO(release_model, read_all(&model, source, dir));
    hf_source_close(source);
    *out = model;
    return OK;
release_model:
    model_release(&model);
close_source:
    hf_source_close(source);
    return status;
}

Status hf_load_into(Model *model, const char *dir)
{
    HfSource *source;
    TRY(hf_source_open(&source, dir));
    const Status status =
        params_count(&source->shape) == model->params.count
            ? read_all(model, source, dir)
            : fail(BAD_INPUT, "%s/config.json: has changed while it was read; start again", dir);
    hf_source_close(source);
    return status;
}

Status hf_weights_dtype(DType *out, const char *dir)
{
    HfWeights weights;
    const SafeTensors *file;
    const char *stored;
    Status status;
    TRY(hf_weights_open(&weights, dir));
    TRY_GOTO(close_weights, find_tensor(&file, &stored, &weights, &(ModelShape){.tied_head = true},
                                        hf_embed_name));
    if (file == NULL)
        status = fail(BAD_INPUT, "%s: tensor '%s' is missing", weights.path, hf_embed_name);
    else
        *out = dtype_of_memory(safetensors_find(file, stored)->dtype);
close_weights:
    hf_weights_close(&weights);
    return status;
}

Status hf_saved_dtype(DType *out, const char *dir)
{
    DType dtype;
    TRY(hf_weights_dtype(&dtype, dir));
    if (!dtype_is_float(dtype))
        return fail(BAD_INPUT,
                    "%s: the embedding's dtype is %s, supported are F32, F16, BF16 and F64", dir,
                    dtype_name(dtype));
    *out = dtype;
    return OK;
}

Status hf_load_rope_pairs(int32_t *pairs, const ModelShape *shape, const char *dir)
{
    HfWeights weights;
    TRY(hf_weights_open(&weights, dir));
    Status status = read_pairs(pairs, shape, &weights);
    hf_weights_close(&weights);
    return status;
}
