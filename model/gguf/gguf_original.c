// In `llama` and `smollm3` neighbouring rows of a head are rotated, as Meta's own files have them,
// and not rows p and p + E/2: q and k are written with the two halves of each head interleaved. In
// `qwen3` they are as here.
#include "model/gguf/gguf_original.h"

#include <string.h>

typedef struct TensorName {
    size_t field; // of LayerParams or Params
    const char *name;
} TensorName;

static const TensorName layer_names[] = {
    {offsetof(LayerParams, attn_norm), "attn_norm"},
    {offsetof(LayerParams, q), "attn_q"},
    {offsetof(LayerParams, k), "attn_k"},
    {offsetof(LayerParams, v), "attn_v"},
    {offsetof(LayerParams, o), "attn_output"},
    {offsetof(LayerParams, ffn_norm), "ffn_norm"},
    {offsetof(LayerParams, gate), "ffn_gate"},
    {offsetof(LayerParams, up), "ffn_up"},
    {offsetof(LayerParams, down), "ffn_down"},
    {offsetof(LayerParams, q_norm), "attn_q_norm"},
    {offsetof(LayerParams, k_norm), "attn_k_norm"},
    {offsetof(LayerParams, q_bias), "attn_q"},
    {offsetof(LayerParams, k_bias), "attn_k"},
    {offsetof(LayerParams, v_bias), "attn_v"},
    {offsetof(LayerParams, o_bias), "attn_output"},
};
static const TensorName model_names[] = {
    {offsetof(Params, embed), "token_embd"},
    {offsetof(Params, norm), "output_norm"},
    {offsetof(Params, head), "output"},
};

static bool has_no_rope(const ModelShape *shape)
{
    return layer_set_count(&shape->no_rope) > 0;
}

// NULL: llama.cpp's architecture does not have the tensor.
static const char *name_of(const ModelShape *shape, const ParamInfo *info)
{
    const TensorName *names = info->layer < 0 ? model_names : layer_names;
    const size_t n_names = info->layer < 0 ? sizeof model_names / sizeof *model_names
                                           : sizeof layer_names / sizeof *layer_names;
    const bool is_out_bias = info->layer >= 0 && info->field == offsetof(LayerParams, o_bias);
    if ((shape->qk_norm && is_out_bias) || (has_no_rope(shape) && info->is_bias))
        return NULL;
    for (size_t i = 0; i < n_names; i++)
        if (names[i].field == info->field)
            return names[i].name;
    return NULL;
}

static bool is_interleaved(const ModelShape *shape, const ParamInfo *info)
{
    static const size_t rotated[] = {offsetof(LayerParams, q), offsetof(LayerParams, k),
                                     offsetof(LayerParams, q_bias), offsetof(LayerParams, k_bias)};
    bool is_rotated = false;
    for (size_t i = 0; i < sizeof rotated / sizeof *rotated; i++)
        is_rotated = is_rotated || info->field == rotated[i];
    return !shape->qk_norm && info->layer >= 0 && is_rotated;
}

// `tensor` is the parameter's index.
static void interleave_halves(float *out, const void *context, int tensor)
{
    const Model *model = context;
    const ParamInfo info = params_info(&model->shape, tensor);
    const float *values = model->params.flat + info.offset;
    const int E = model->shape.head_dim, half = E / 2;
    for (int row = 0; row < info.rows; row++) {
        const int head = row / E, at = row % E;
        const int from = head * E + at / 2 + (at % 2) * half;
        memcpy(out + (int64_t)row * info.cols, values + (int64_t)from * info.cols,
               (size_t)info.cols * sizeof *out);
    }
}

// Llama 3's scaled frequencies: what llama.cpp divides the plain ones by.
static void make_slowdowns(float *out, const void *context, int tensor)
{
    const ModelShape *s = &((const Model *)context)->shape;
    (void)tensor;
    for (int p = 0; p < s->head_dim / 2; p++)
        out[p] = (float)rope_slowdown(p, s->head_dim, s->rope_theta, &s->rope_scaling);
}

const char *gguf_original_architecture(const ModelShape *shape)
{
    return shape->qk_norm ? "qwen3" : has_no_rope(shape) ? "smollm3" : "llama";
}

// The file does not say which layers have RoPE: llama.cpp knows it of the architecture.
static Status check_no_rope(const ModelShape *s)
{
    enum { INTERVAL = 4 };
    bool is_regular = !s->qk_norm;
    for (int l = 0; l < s->n_layers; l++)
        is_regular = is_regular && shape_rotates(s, l) == ((l + 1) % INTERVAL != 0);
    if (!has_no_rope(s) || is_regular)
        return OK;
    return fail(BAD_INPUT,
                "--format gguf: of %d layers %d have no RoPE; llama.cpp has models without it in "
                "every %dth layer alone, and without qk_norm (smollm3); use --format hf",
                s->n_layers, layer_set_count(&s->no_rope), INTERVAL);
}

// Only `llama` takes a table of them.
static Status check_rope_scaling(const ModelShape *s)
{
    if (s->rope_scaling.factor == 0 || !(s->qk_norm || has_no_rope(s)))
        return OK;
    return fail(BAD_INPUT,
                "--format gguf has no scaled frequencies (llama3, factor %g) for models with %s: "
                "llama.cpp's %s takes no table of them; use --format hf",
                s->rope_scaling.factor, s->qk_norm ? "qk_norm" : "layers without RoPE",
                gguf_original_architecture(s));
}

Status gguf_original_check(const ModelShape *shape)
{
    TRY(check_no_rope(shape));
    return check_rope_scaling(shape);
}

Status gguf_original_list_tensors(TensorList *out, const Model *model, DType dtype)
{
    const ModelShape *s = &model->shape;
    const int n_tensors = params_n_tensors(s);
    TRY(tensor_list_create(out, n_tensors + 1));
    if (s->rope_scaling.factor > 0)
        tensor_list_add(out, "rope_freqs.weight",
                        (TensorSpec){.dtype = dtype,
                                     .n_dims = 1,
                                     .dims = {s->head_dim / 2},
                                     .make = make_slowdowns,
                                     .context = model});
    for (int t = 0; t < n_tensors; t++) {
        const ParamInfo info = params_info(s, t);
        const char *own = name_of(s, &info);
        char name[PARAM_NAME_BYTES];
        if (own == NULL) {
            tensor_list_release(out);
            return fail(BAD_INPUT,
                        "--format gguf has no place for %s in llama.cpp's architecture %s; use "
                        "--format hf",
                        info.name, gguf_original_architecture(s));
        }
        if (info.layer >= 0)
            snprintf(name, sizeof name, "blk.%d.%s.%s", info.layer, own,
                     info.is_bias ? "bias" : "weight");
        else
            snprintf(name, sizeof name, "%s.weight", own);
        TensorSpec spec = {.dtype = dtype,
                           .n_dims = info.is_vector ? 1 : 2,
                           .dims = {info.rows, info.cols},
                           .context = model,
                           .tensor = t};
        if (is_interleaved(s, &info))
            spec.make = interleave_halves;
        else
            spec.values = model->params.flat + info.offset;
        tensor_list_add(out, name, spec);
    }
    return OK;
}
