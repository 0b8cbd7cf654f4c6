#include "model/deepseek/deepseek_tensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// eps of DeepSeek's norm of the latent in transformers: it does not read config.json there.
static const double transformers_eps = 1e-6;
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
    T_K_B,
    T_V_B,
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

// NULL: the format has others in its place.
static const char *const tensor_names[N_TENSORS][2] = {
    // DEEPSEEK_HF, DEEPSEEK_GGUF
    [T_INPUT_NORM] = {"input_layernorm", "attn_norm"},
    [T_Q] = {"self_attn.q_proj", "attn_q"},
    [T_KV_A] = {"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"},
    [T_KV_NORM] = {"self_attn.kv_a_layernorm", "attn_kv_a_norm"},
    [T_KV_B] = {"self_attn.kv_b_proj", NULL},
    [T_K_B] = {NULL, "attn_k_b"},
    [T_V_B] = {NULL, "attn_v_b"},
    [T_O] = {"self_attn.o_proj", "attn_output"},
    [T_POST_NORM] = {"post_attention_layernorm", "ffn_norm"},
    [T_GATE] = {"mlp.gate_proj", "ffn_gate"},
    [T_UP] = {"mlp.up_proj", "ffn_up"},
    [T_DOWN] = {"mlp.down_proj", "ffn_down"},
    [T_EMBED] = {"model.embed_tokens.weight", "token_embd.weight"},
    [T_NORM] = {"model.norm.weight", "output_norm.weight"},
    [T_HEAD] = {"lm_head.weight", "output.weight"},
};

Status deepseek_create(Deepseek *out, const Model *model, DeepseekFormat format, bool plain_rope)
{
    const ModelShape *s = &model->shape;
    if (!shape_is_mla(s))
        return fail(BAD_INPUT, "the model has its original attention, which is Llama's; --format "
                               "deepseek is for converted models");
    if (s->qk_norm)
        return fail(
            BAD_INPUT,
            "DeepSeek's attention, which --format %s is for, has no RMSNorm of every head of "
            "queries and keys (qk_norm); use --format hf",
            format == DEEPSEEK_HF ? "deepseek" : "gguf");
    if (s->attention_bias != BIAS_NONE)
        return fail(BAD_INPUT,
                    "DeepSeek's attention, which --format %s is for, has no biases of projections; "
                    "use --format hf",
                    format == DEEPSEEK_HF ? "deepseek" : "gguf");
    if (layer_set_count(&s->no_rope) > 0)
        return fail(BAD_INPUT,
                    "DeepSeek's attention, which --format %s is for, has RoPE in every layer, this "
                    "model has none in %d of %d; use --format hf",
                    format == DEEPSEEK_HF ? "deepseek" : "gguf", layer_set_count(&s->no_rope),
                    s->n_layers);
    Deepseek d = {.model = model,
                  .format = format,
                  .eps = format == DEEPSEEK_HF ? transformers_eps : s->rms_eps,
                  .nope = shape_head_nope(s),
                  .latent = shape_dim(s, DIM_LATENT)};
    d.stream_scale = sqrt(d.eps / s->rms_eps);
    d.latent_scale = s->latent_norm ? d.stream_scale : sqrt(d.eps) / linear_weight;
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

// Rows of a head's up-projection over the whole latent, of which it reads `read` columns from
// `first` on. In the per-head form a query head has those of its KV head.
static void copy_up(float *out, const Deepseek *d, const float *up, int head, int n_rows, int first)
{
    const ModelShape *s = &d->model->shape;
    const int read = shape_dim(s, DIM_UP_INPUT), group = s->n_heads / shape_up_heads(s);
    const float *rows = up + (int64_t)(head / group) * n_rows * read;
    memset(out, 0, (size_t)n_rows * (size_t)d->latent * sizeof *out);
    for (int r = 0; r < n_rows; r++)
        memcpy(out + (int64_t)r * d->latent + first, rows + (int64_t)r * read,
               (size_t)read * sizeof *out);
}

static void copy_up_k(float *out, const Deepseek *d, int layer, int head) // [n, R]
{
    if (d->nope > 0) // else there is no up_k
        copy_up(out, d, d->model->params.layers[layer].up_k, head, d->nope, 0);
}

static void copy_up_v(float *out, const Deepseek *d, int layer, int head) // [E, R]
{
    const ModelShape *s = &d->model->shape;
    copy_up(out, d, d->model->params.layers[layer].up_v, head, s->head_dim,
            d->latent - shape_dim(s, DIM_UP_INPUT));
}

// Of every query head the rows of its keys, then of its values.
static void make_kv_b(float *out, const Deepseek *d, int layer) // [H (n + E), R]
{
    const int H = d->model->shape.n_heads, E = d->model->shape.head_dim;
    for (int h = 0; h < H; h++) {
        float *head = out + (int64_t)h * (d->nope + E) * d->latent;
        copy_up_k(head, d, layer, h);
        copy_up_v(head + (int64_t)d->nope * d->latent, d, layer, h);
    }
}

// The keys' as the absorbed query's projection, which llama.cpp multiplies with.
static void make_k_b(float *out, const Deepseek *d, int layer) // [H, R, n]
{
    const ModelShape *s = &d->model->shape;
    const int group = s->n_heads / shape_up_heads(s), read = shape_dim(s, DIM_UP_INPUT);
    const int n = d->nope;
    memset(out, 0, (size_t)s->n_heads * (size_t)d->latent * (size_t)n * sizeof *out);
    for (int h = 0; h < s->n_heads; h++) {
        const float *up = d->model->params.layers[layer].up_k + (int64_t)(h / group) * n * read;
        float *head = out + (int64_t)h * d->latent * n;
        for (int c = 0; c < read; c++)
            for (int r = 0; r < n; r++)
                head[(int64_t)c * n + r] = up[(int64_t)r * read + c];
    }
}

static void make_v_b(float *out, const Deepseek *d, int layer) // [H, E, R]
{
    const int E = d->model->shape.head_dim;
    for (int h = 0; h < d->model->shape.n_heads; h++)
        copy_up_v(out + (int64_t)h * E * d->latent, d, layer, h);
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
    case T_K_B:
        make_k_b(out, d, layer);
        break;
    case T_V_B:
        make_v_b(out, d, layer);
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
    const Params *params = &d->model->params;
    const LayerParams *w = kind < N_LAYER_TENSORS ? &params->layers[layer] : NULL;
    const bool is_unscaled = d->stream_scale == 1;
    switch (kind) {
    case T_INPUT_NORM:
        return w->attn_norm;
    case T_POST_NORM:
        return w->ffn_norm;
    case T_GATE:
        return w->gate;
    case T_UP:
        return w->up;
    case T_O:
        return is_unscaled ? w->o : NULL;
    case T_DOWN:
        return is_unscaled ? w->down : NULL;
    case T_EMBED:
        return is_unscaled ? params->embed : NULL;
    case T_NORM:
        return is_unscaled ? params->norm : NULL;
    case T_HEAD:
        return params->head;
    }
    return NULL;
}

typedef struct TensorDims {
    int64_t dims[3]; // 0: it has no more
} TensorDims;

static TensorDims dims_of(const Deepseek *d, int kind)
{
    const ModelShape *s = &d->model->shape;
    const int64_t D = s->d_model, F = s->d_ffn, V = s->vocab_size, H = s->n_heads, E = s->head_dim;
    const TensorDims all[N_TENSORS] = {
        [T_INPUT_NORM] = {{D}},
        [T_Q] = {{H * (d->nope + d->rho), D}},
        [T_KV_A] = {{d->latent + d->rho, D}},
        [T_KV_NORM] = {{d->latent}},
        [T_KV_B] = {{H * (d->nope + E), d->latent}},
        [T_K_B] = {{H, d->latent, d->nope}},
        [T_V_B] = {{H, E, d->latent}},
        [T_O] = {{D, H * E}},
        [T_POST_NORM] = {{D}},
        [T_GATE] = {{F, D}},
        [T_UP] = {{F, D}},
        [T_DOWN] = {{D, F}},
        [T_EMBED] = {{V, D}},
        [T_NORM] = {{D}},
        [T_HEAD] = {{V, D}},
    };
    return all[kind];
}

static bool has_tensor(const Deepseek *d, int kind)
{
    return tensor_names[kind][d->format] != NULL && !(kind == T_HEAD && d->model->shape.tied_head);
}

static void add(TensorList *list, const Deepseek *d, DType dtype, int layer, int kind)
{
    char name[PARAM_NAME_BYTES];
    const char *own = tensor_names[kind][d->format];
    const char *prefix = d->format == DEEPSEEK_HF ? "model.layers" : "blk";
    if (!has_tensor(d, kind))
        return;
    if (kind < N_LAYER_TENSORS)
        snprintf(name, sizeof name, "%s.%d.%s.weight", prefix, layer, own);
    else
        snprintf(name, sizeof name, "%s", own);
    const float *values = own_values(d, layer, kind);
    const TensorDims shape = dims_of(d, kind);
    TensorSpec spec = {.dtype = dtype,
                       .values = values,
                       .make = values == NULL ? make : NULL,
                       .context = d,
                       .tensor = layer * N_LAYER_TENSORS + kind};
    while (spec.n_dims < 3 && shape.dims[spec.n_dims] > 0) {
        spec.dims[spec.n_dims] = shape.dims[spec.n_dims];
        spec.n_dims++;
    }
    tensor_list_add(list, name, spec);
}

Status deepseek_list_tensors(TensorList *out, const Deepseek *d, DType dtype)
{
    const int L = d->model->shape.n_layers;
    TRY(tensor_list_create(out, L * N_LAYER_TENSORS + N_TENSORS - N_LAYER_TENSORS));
    // Beside the layers, `make` counts on from the last layer's.
    add(out, d, dtype, L - 1, T_EMBED);
    for (int l = 0; l < L; l++)
        for (int kind = 0; kind < N_LAYER_TENSORS; kind++)
            add(out, d, dtype, l, kind);
    add(out, d, dtype, L - 1, T_NORM);
    add(out, d, dtype, L - 1, T_HEAD);
    return OK;
}

int64_t deepseek_count(const Deepseek *d)
{
    int64_t count = 0;
    for (int kind = 0; kind < N_TENSORS; kind++) {
        const TensorDims shape = dims_of(d, kind);
        int64_t numbers = kind < N_LAYER_TENSORS ? d->model->shape.n_layers : 1;
        for (int i = 0; i < 3 && shape.dims[i] > 0; i++)
            numbers *= shape.dims[i];
        count += has_tensor(d, kind) ? numbers : 0;
    }
    return count;
}

bool deepseek_has_tiny_rows(const Deepseek *d, const TensorSpec *spec)
{
    return !d->model->shape.latent_norm && spec->make == make &&
           spec->tensor % N_LAYER_TENSORS == T_KV_A;
}
