// Tensors are made while they are written, from the model's own rows.
#include "model/hf/deepseek.h"

#include "base/log.h"
#include "model/hf/deepseek_config.h"
#include "model/hf/hf.h"
#include "model/hf/hf_directory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// eps of DeepSeek's norm of the latent in transformers: it does not read config.json there.
static const double deepseek_eps = 1e-6;
// Where the latent c has no norm, this is the norm's weight, exact in bfloat16, and c is scaled by
// sqrt(eps) over it. The mean square of c becomes 2e-16 mean(c^2) beside eps: the norm is linear up
// to a relative error of 1.2e-10 mean(c^2).
static const double linear_weight = 0x1p16;

// The tensors of a layer, in the order of the files, and those beside the layers.
typedef enum DeepseekTensor {
    T_INPUT_NORM,
    T_Q,
    T_KV_A,
    T_KV_NORM,
    T_KV_B,
    T_O,
    T_POST_NORM,
    T_GATE,
    T_UP,
    T_DOWN,
    N_LAYER_TENSORS,
    T_EMBED = N_LAYER_TENSORS,
    T_NORM,
    T_HEAD,
    N_TENSORS,
} DeepseekTensor;

static const char *const tensor_names[N_TENSORS] = {
    [T_INPUT_NORM] = "input_layernorm",
    [T_Q] = "self_attn.q_proj",
    [T_KV_A] = "self_attn.kv_a_proj_with_mqa",
    [T_KV_NORM] = "self_attn.kv_a_layernorm",
    [T_KV_B] = "self_attn.kv_b_proj",
    [T_O] = "self_attn.o_proj",
    [T_POST_NORM] = "post_attention_layernorm",
    [T_GATE] = "mlp.gate_proj",
    [T_UP] = "mlp.up_proj",
    [T_DOWN] = "mlp.down_proj",
    [T_EMBED] = "model.embed_tokens.weight",
    [T_NORM] = "model.norm.weight",
    [T_HEAD] = "lm_head.weight",
};

Status deepseek_create(Deepseek *out, const Model *model, bool plain_rope)
{
    const ModelShape *s = &model->shape;
    if (!shape_is_mla(s))
        return fail(BAD_INPUT, "the model has its original attention, which is Llama's; --format "
                               "deepseek is for converted models");
    Deepseek d = {.model = model,
                  .nope = shape_head_nope(s),
                  .latent = shape_dim(s, DIM_LATENT),
                  .stream_scale = sqrt(deepseek_eps / s->rms_eps)};
    d.latent_scale = s->latent_norm ? d.stream_scale : sqrt(deepseek_eps) / linear_weight;
    TRY(rope_slots_create(&d.slots, model, plain_rope));
    d.rho = 2 * d.slots.n_slots;
    *out = d;
    return OK;
}

void deepseek_release(Deepseek *deepseek)
{
    rope_slots_release(&deepseek->slots);
}

// ---- tensors -----------------------------------------------------------------------------------

static void scale(float *restrict out, const float *restrict values, int64_t count, double factor)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)(values[i] * factor);
}

// Of every query head n rows without position, then rho rotated ones, slot i in rows 2i and 2i + 1.
static void make_q(float *out, const Deepseek *d, int layer) // [H (n + rho), D]
{
    const ModelShape *s = &d->model->shape;
    const float *q = d->model->params.layers[layer].q;
    const int D = s->d_model, P = s->rope_pairs, H = s->n_heads, width = d->nope + d->rho;
    const int group = H / shape_rope_heads(s);
    const double factor = sqrt((double)width / s->head_dim);
    memset(out, 0, (size_t)H * width * D * sizeof *out);
    for (int h = 0; h < H; h++) {
        float *head = out + (int64_t)h * width * D;
        const float *rotated = q + (int64_t)h * 2 * P * D;
        scale(head, q + ((int64_t)H * 2 * P + (int64_t)h * d->nope) * D, (int64_t)d->nope * D,
              factor);
        for (int i = 0; i < P; i++) {
            float *slot =
                head + (int64_t)(d->nope + 2 * rope_slots_of(&d->slots, layer, h / group, i)) * D;
            scale(slot, rotated + (int64_t)i * D, D, factor);
            scale(slot + D, rotated + (int64_t)(P + i) * D, D, factor);
        }
    }
}

// The latent's rows, then the slots of the rotated keys.
static void make_kv_a(float *out, const Deepseek *d, int layer) // [R + rho, D]
{
    const ModelShape *s = &d->model->shape;
    const LayerParams *w = &d->model->params.layers[layer];
    const int D = s->d_model, P = s->rope_pairs;
    float *keys = out + (int64_t)d->latent * D;
    scale(out, w->down_kv, (int64_t)d->latent * D, d->latent_scale);
    memset(keys, 0, (size_t)d->rho * D * sizeof *keys);
    for (int j = 0; j < shape_rope_heads(s); j++)
        for (int i = 0; i < P; i++) {
            float *slot = keys + (int64_t)2 * rope_slots_of(&d->slots, layer, j, i) * D;
            const float *row = w->k_r + (int64_t)(j * 2 * P + i) * D;
            memcpy(slot, row, (size_t)D * sizeof *slot);
            memcpy(slot + D, row + (int64_t)P * D, (size_t)D * sizeof *slot);
        }
}

// Rows of an up-projection that reads `read` columns of the latent from `first` on.
static void make_up(float *out, const float *rows, int n_rows, int read, int first, int latent)
{
    for (int r = 0; r < n_rows; r++)
        memcpy(out + (int64_t)r * latent + first, rows + (int64_t)r * read,
               (size_t)read * sizeof *out);
}

// Of every query head the rows of its keys, then of its values: those of its KV head in the
// per-head form.
static void make_kv_b(float *out, const Deepseek *d, int layer) // [H (n + E), R]
{
    const ModelShape *s = &d->model->shape;
    const LayerParams *w = &d->model->params.layers[layer];
    const int H = s->n_heads, E = s->head_dim, R = d->latent, n = d->nope;
    const int read = shape_dim(s, DIM_UP_INPUT), group = H / shape_up_heads(s);
    memset(out, 0, (size_t)H * (n + E) * R * sizeof *out);
    for (int h = 0; h < H; h++) {
        float *head = out + (int64_t)h * (n + E) * R;
        if (n > 0) // else there is no up_k
            make_up(head, w->up_k + (int64_t)(h / group) * n * read, n, read, 0, R);
        make_up(head + (int64_t)n * R, w->up_v + (int64_t)(h / group) * E * read, E, read, R - read,
                R);
    }
}

static void make_latent_norm(float *out, const Deepseek *d, int layer) // [R]
{
    const float *weight = d->model->params.layers[layer].latent_norm;
    for (int i = 0; i < d->latent; i++)
        out[i] = weight != NULL ? weight[i] : (float)linear_weight;
}

// `tensor` counts N_LAYER_TENSORS for every layer, then T_EMBED and what follows.
static void make(float *out, const void *context, int tensor)
{
    const Deepseek *d = context;
    const ModelShape *s = &d->model->shape;
    const Params *params = &d->model->params;
    const int64_t D = s->d_model;
    const int layer = tensor / N_LAYER_TENSORS;
    const int kind = layer < s->n_layers ? tensor % N_LAYER_TENSORS
                                         : N_LAYER_TENSORS + tensor - s->n_layers * N_LAYER_TENSORS;
    switch (kind) {
    case T_Q:
        make_q(out, d, layer);
        break;
    case T_KV_A:
        make_kv_a(out, d, layer);
        break;
    case T_KV_NORM:
        make_latent_norm(out, d, layer);
        break;
    case T_KV_B:
        make_kv_b(out, d, layer);
        break;
    case T_O:
        scale(out, params->layers[layer].o, D * shape_dim(s, DIM_Q), d->stream_scale);
        break;
    case T_DOWN:
        scale(out, params->layers[layer].down, D * s->d_ffn, d->stream_scale);
        break;
    case T_EMBED:
        scale(out, params->embed, D * s->vocab_size, d->stream_scale);
        break;
    case T_NORM: // a tied head has the scale of the embedding
        scale(out, params->norm, D, s->tied_head ? 1 / d->stream_scale : 1);
        break;
    default:
        CHECK(false, "tensor %d is not made", tensor);
    }
}

// The tensor's own numbers, where they stay as they are; NULL: they are made.
static const float *own_values(const Deepseek *d, int layer, int kind)
{
    const LayerParams *w = kind < N_LAYER_TENSORS ? &d->model->params.layers[layer] : NULL;
    switch (kind) {
    case T_INPUT_NORM:
        return w->attn_norm;
    case T_POST_NORM:
        return w->ffn_norm;
    case T_GATE:
        return w->gate;
    case T_UP:
        return w->up;
    case T_HEAD:
        return d->model->params.head;
    }
    return NULL;
}

// Rows and columns; 0 columns: a vector.
static void dims_of(int64_t dims[2], const Deepseek *d, int kind)
{
    const ModelShape *s = &d->model->shape;
    const int64_t D = s->d_model, F = s->d_ffn, V = s->vocab_size, H = s->n_heads, E = s->head_dim;
    const int64_t all[N_TENSORS][2] = {
        [T_INPUT_NORM] = {D, 0},
        [T_Q] = {H * (d->nope + d->rho), D},
        [T_KV_A] = {d->latent + d->rho, D},
        [T_KV_NORM] = {d->latent, 0},
        [T_KV_B] = {H * (d->nope + E), d->latent},
        [T_O] = {D, H * E},
        [T_POST_NORM] = {D, 0},
        [T_GATE] = {F, D},
        [T_UP] = {F, D},
        [T_DOWN] = {D, F},
        [T_EMBED] = {V, D},
        [T_NORM] = {D, 0},
        [T_HEAD] = {V, D},
    };
    memcpy(dims, all[kind], sizeof all[kind]);
}

static void add(TensorList *list, const Deepseek *d, DType dtype, int layer, int kind)
{
    char name[PARAM_NAME_BYTES];
    int64_t dims[2];
    if (kind < N_LAYER_TENSORS)
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, tensor_names[kind]);
    else
        snprintf(name, sizeof name, "%s", tensor_names[kind]);
    const float *values = own_values(d, layer, kind);
    dims_of(dims, d, kind);
    tensor_list_add(list, name,
                    (TensorSpec){.dtype = dtype,
                                 .n_dims = dims[1] > 0 ? 2 : 1,
                                 .dims = {dims[0], dims[1]},
                                 .values = values,
                                 .make = values == NULL ? make : NULL,
                                 .context = d,
                                 .tensor = layer * N_LAYER_TENSORS + kind});
}

static void list_tensors(TensorList *list, const Deepseek *d, DType dtype)
{
    const int L = d->model->shape.n_layers;
    // Beside the layers, `make` counts on from the last layer's.
    add(list, d, dtype, L - 1, T_EMBED);
    for (int l = 0; l < L; l++)
        for (int kind = 0; kind < N_LAYER_TENSORS; kind++)
            add(list, d, dtype, l, kind);
    add(list, d, dtype, L - 1, T_NORM);
    if (!d->model->shape.tied_head)
        add(list, d, dtype, L - 1, T_HEAD);
}

// ---- the directory -----------------------------------------------------------------------------

Status deepseek_save(const Deepseek *d, const char *base_dir, DType dtype, const char *dir)
{
    const ModelShape *s = &d->model->shape;
    Status status;
    TensorList list;
    json_t *config;
    TRY(hf_check_target(base_dir, dir));
    if (dtype == DTYPE_F16 && !s->latent_norm)
        return fail(BAD_INPUT,
                    "--format deepseek cannot be float16 for a model whose latent has no "
                    "norm: numbers near 1e-8 and 7e4 are in it; use float32 or bfloat16");
    TRY(tensor_list_create(&list, s->n_layers * N_LAYER_TENSORS + 3));
    list_tensors(&list, d, dtype);
    TRY_GOTO(release_list, tensor_list_check(&list));
    TRY_GOTO(release_list, deepseek_config_make(&config, d, base_dir, dtype));
    const HfDirectory files = {.tensors = &list,
                               .config = config,
                               .base_dir = base_dir,
                               .max_positions = s->max_positions};
    status = hf_directory_write(&files, dir);
    json_decref(config);
release_list:
    tensor_list_release(&list);
    return status;
}

void deepseek_describe(const Deepseek *d, DType dtype)
{
    const ModelShape *s = &d->model->shape;
    const int64_t size = dtype_size_bytes(dtype), own = shape_cache_numbers(s);
    const int64_t cache = (int64_t)s->n_layers * (d->latent + d->rho);
    int64_t numbers = 0, dims[2];
    for (int kind = 0; kind < N_TENSORS; kind++) {
        dims_of(dims, d, kind);
        if (kind != T_HEAD || !s->tied_head)
            numbers +=
                dims[0] * (dims[1] > 0 ? dims[1] : 1) * (kind < N_LAYER_TENSORS ? s->n_layers : 1);
    }
    printf("DeepSeek's format: %d rotated slots, of which a layer uses %d; KV cache %lld bytes per "
           "token (own format %lld), weights %lld bytes (own format %lld)\n",
           d->slots.n_slots, d->slots.row, (long long)(cache * size), (long long)(own * size),
           (long long)(numbers * size), (long long)(params_count(s) * size));
    if (!s->latent_norm)
        log_warn("the latent has no norm, so DeepSeek's is made linear: right in float32 and "
                 "bfloat16, not a number or nonsense in engines that compute in float16");
    if (d->slots.stride == 0)
        log_warn(
            "the rotated pairs are not every n-th one from 0, so the frequencies are a longrope "
            "table: transformers runs it, vLLM and llama.cpp do not; --plain-rope makes it plain "
            "for "
            "more slots");
    if (d->nope == 0)
        log_warn("all pairs are rotated, so qk_nope_head_dim is 0: vLLM needs at least one");
    if (d->latent != 512 || d->rho != 64)
        log_info("vLLM: heads of %d + %d need its Triton backend of 2026 or later; FlashMLA takes "
                 "512 + 64 alone",
                 d->latent, d->rho);
}
