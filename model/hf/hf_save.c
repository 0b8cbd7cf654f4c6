// Saving in the model's own form. What can be refused is refused before the first byte is written.
#include "model/hf/hf.h"

#include "model/hf/hf_config.h"
#include "model/hf/hf_directory.h"

// rope_pairs are saved as tensors of int32, so that a converted model is complete in itself. They
// come first: with wider dtypes first all are aligned.
static void list_tensors(TensorList *list, const Model *model, DType dtype)
{
    const ModelShape *s = &model->shape;
    const int n_tensors = params_n_tensors(s);
    for (int l = 0; shape_is_mla(s) && l < s->n_layers; l++) {
        char name[PARAM_NAME_BYTES];
        snprintf(name, sizeof name, "model.layers.%d.self_attn.rope_pairs", l);
        tensor_list_add(list, name,
                        (TensorSpec){.dtype = DTYPE_I32,
                                     .n_dims = 2,
                                     .dims = {shape_rope_heads(s), s->rope_pairs},
                                     .values = model_pairs(model, l, 0)});
    }
    for (int t = 0; t < n_tensors; t++) {
        const ParamInfo info = params_info(s, t);
        tensor_list_add(list, info.name,
                        (TensorSpec){.dtype = dtype,
                                     .n_dims = info.is_vector ? 1 : 2,
                                     .dims = {info.rows, info.cols},
                                     .values = model->params.flat + info.offset});
    }
}

Status hf_check_target(const char *base_dir, const char *dir)
{
    if (base_dir != NULL && file_is_same(base_dir, dir))
        return fail(BAD_INPUT, "%s: is the base model's directory; name another to save to", dir);
    if (file_exists(dir) && !file_is_dir(dir))
        return fail(BAD_INPUT, "%s: is a file; name a directory to save to", dir);
    return base_dir != NULL ? hf_check_tokenizer(base_dir) : OK;
}

// All that can be refused comes before hf_directory_write(), which removes the old config.json.
Status hf_save_sharded(const Model *model, const char *base_dir, DType dtype, const char *dir,
                       int64_t max_shard_bytes)
{
    const ModelShape *shape = &model->shape;
    Status status;
    TensorList list;
    json_t *config;
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16, "dtype %d", (int)dtype);
    TRY(hf_check_target(base_dir, dir));
    TRY(tensor_list_create(&list, params_n_tensors(shape) + shape->n_layers));
    list_tensors(&list, model, dtype);
    TRY_GOTO(release_list, tensor_list_check(&list));
    TRY_GOTO(release_list, hf_config_make(&config, shape, base_dir, dtype));
    const HfDirectory files = {.tensors = &list,
                               .config = config,
                               .base_dir = base_dir,
                               .max_positions = shape->max_positions,
                               .has_code = shape_is_mla(shape),
                               .max_shard_bytes = max_shard_bytes};
    status = hf_directory_write(&files, dir);
    json_decref(config);
release_list:
    tensor_list_release(&list);
    return status;
}

Status hf_save(const Model *model, const char *base_dir, DType dtype, const char *dir)
{
    return hf_save_sharded(model, base_dir, dtype, dir, 0);
}
