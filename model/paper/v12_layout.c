#include "model/paper/v12_layout.h"

#include "model/hf/hf.h"
#include "model/hf/hf_config.h"
#include "model/hf/hf_directory.h"
#include "model/paper/paper_names.h"
#include "model/paper/torch_file.h"

#include <stdlib.h>
#include <string.h>

static const char rank_file[] = "qk_rank.pth";

// ---- tensors -----------------------------------------------------------------------------------

static void add(TensorList *list, const char *name, DType dtype, int n_dims, int64_t rows,
                int64_t cols, const float *values)
{
    tensor_list_add(
        list, name,
        (TensorSpec){.dtype = dtype, .n_dims = n_dims, .dims = {rows, cols}, .values = values});
}

static void list_tensors(TensorList *list, const Model *model, DType dtype)
{
    const ModelShape *s = &model->shape;
    const int n_tensors = params_n_tensors(s);
    for (int t = 0; t < n_tensors; t++) {
        const ParamInfo info = params_info(s, t);
        PaperTensor parts[2];
        const int n_parts = paper_names(parts, s, &info, PAPER_V12);
        for (int i = 0; i < n_parts; i++)
            add(list, parts[i].name, dtype, info.is_vector ? 1 : 2, parts[i].rows, info.cols,
                model->params.flat + info.offset + (int64_t)parts[i].first_row * info.cols);
    }
    // That code loads strictly: a head that is the embedding, and an up_k without rows where all
    // pairs are kept, are to be in the file too.
    if (s->tied_head)
        add(list, "lm_head.weight", dtype, 2, s->vocab_size, s->d_model, model->params.embed);
    for (int l = 0; l < s->n_layers && shape_dim(s, DIM_K_NOPE) == 0; l++) {
        char name[PARAM_NAME_BYTES];
        snprintf(name, sizeof name, "model.layers.%d.self_attn.kv_proj.up_k.weight", l);
        add(list, name, dtype, 2, 0, shape_dim(s, DIM_UP_INPUT), NULL);
    }
}

// ---- ranks and config --------------------------------------------------------------------------

// ranks [L, K, E]: of each dim the place of its pair, of which the first P are kept, by their
// order; both dims of a pair have the same.
static void fill_ranks(uint8_t *ranks, const Model *model)
{
    const ModelShape *s = &model->shape;
    const int half = s->head_dim / 2, P = s->rope_pairs;
    for (int row = 0; row < s->n_layers * s->n_kv_heads; row++, ranks += s->head_dim) {
        const int32_t *pairs = model->rope_pairs + (int64_t)row * P;
        int n_kept = 0, n_left = 0;
        for (int p = 0; p < half; p++) {
            const bool is_kept = n_kept < P && pairs[n_kept] == p;
            ranks[p] = ranks[half + p] = (uint8_t)(is_kept ? n_kept++ : P + n_left++);
        }
    }
}

static Status write_ranks(const Model *model, const char *dir)
{
    const ModelShape *s = &model->shape;
    const int32_t dims[3] = {s->n_layers, s->n_kv_heads, s->head_dim};
    char path[PATH_BYTES];
    TRY(file_make_dirs(dir));
    TRY(file_join(path, dir, rank_file));
    uint8_t *ranks = malloc((size_t)dims[0] * dims[1] * dims[2]);
    if (ranks == NULL)
        return fail(FAILED, "%s: no memory for the ranks", path);
    fill_ranks(ranks, model);
    const Status status = torch_file_write_u8(path, ranks, dims);
    free(ranks);
    return status;
}

// Every key of the block is an argument of that code, which knows no defaults when it reads a
// model.
static Status set_block(json_t *config, const ModelShape *s, const char *dir)
{
    char path[PATH_BYTES];
    TRY(file_join(path, dir, rank_file));
    const bool is_split = s->svd == SVD_SPLIT;
    json_t *block = json_pack(
        "{s:s, s:i, s:i, s:s, s:s, s:i, s:b, s:b, s:b}", "partial_rope_version", "2-norm",
        "rope_dim_for_mla", 2 * s->rope_pairs, "uniform_start_point", 0, "qk_tensor_path", path,
        "svd_init_method", shape_svd_name(s->svd), "low_rank", is_split ? s->d_kv / 2 : s->d_kv,
        "is_baseline", 0, "is_gqa2mha2mla", 0, "is_mla_from_scratch", 0);
    json_object_del(config, "auto_map");
    if (json_object_set_new(config, "mha2mla", block) != 0 ||
        json_object_set_new(config, "model_type", json_string("llama")) != 0 ||
        json_object_set_new(config, "architectures", json_pack("[s]", "LlamaForCausalLM")) != 0)
        return fail(FAILED, "no memory for a config.json");
    return OK;
}

static Status check(const ModelShape *s)
{
    if (!shape_is_mla(s) || shape_is_shared(s))
        return fail(BAD_INPUT, "--format v1.2 is for models converted per KV head, this one has %s",
                    shape_is_mla(s) ? "the shared form" : "its original attention");
    if (s->qk_norm)
        return fail(BAD_INPUT,
                    "--format v1.2 cannot hold qk_norm: the reference's code norms heads "
                    "after RoPE, another model; use --format hf");
    if (s->attention_bias != BIAS_NONE)
        return fail(BAD_INPUT, "--format v1.2 has no biases of projections, this model has");
    if (layer_set_count(&s->no_rope) > 0)
        return fail(BAD_INPUT,
                    "--format v1.2 is of Llama, which has RoPE in every layer; this model has none "
                    "in %d of %d",
                    layer_set_count(&s->no_rope), s->n_layers);
    if (s->svd == SVD_SPLIT && s->d_kv % 2 != 0)
        return fail(BAD_INPUT, "--format v1.2 of split SVD needs an even d_kv, this is %d",
                    s->d_kv);
    if (s->head_dim > 512)
        return fail(BAD_INPUT, "--format v1.2 has ranks of 8 bits, head width %d has more",
                    s->head_dim);
    return OK;
}

Status v12_layout_save(const Model *model, const char *base_dir, DType dtype, const char *dir)
{
    const ModelShape *s = &model->shape;
    Status status;
    TensorList list;
    json_t *config;
    TRY(check(s));
    TRY(hf_check_target(base_dir, dir));
    TRY(tensor_list_create(&list, params_n_tensors(s) + s->n_layers + 1));
    list_tensors(&list, model, dtype);
    TRY_GOTO(release_list, tensor_list_check(&list));
    TRY_GOTO(release_list, hf_config_make(&config, s, base_dir, dtype));
    TRY_GOTO(release_config, set_block(config, s, dir));
    TRY_GOTO(release_config, write_ranks(model, dir));
    const HfDirectory files = {.tensors = &list,
                               .config = config,
                               .base_dir = base_dir,
                               .max_positions = s->max_positions};
    status = hf_directory_write(&files, dir);
release_config:
    json_decref(config);
release_list:
    tensor_list_release(&list);
    return status;
}
