// Adapts each kind of attention to the common signature of the table: widths of its buffers,
// scratch, and the four steps of a layer. Which form runs is decided once per workspace from the
// shape and T, so the step itself has no branches on the kind.
//
// Projections are those of model/attention/mha.h and mla.h, the attention proper that of
// attention.h on expanded keys and values, or of attention_latent.h on the latent.
#include "model/attention/attention_form.h"

#include "base/intmath.h"
#include "model/attention/attention.h"
#include "model/attention/attention_latent.h"
#include "model/attention/head_norm.h"
#include "model/attention/latent_norm.h"
#include "model/attention/mha.h"
#include "model/attention/mla.h"

// ---- attention on expanded keys and values -----------------------------------------------------

// Of the original attention those of heads that are all their own.
static AttentionDims expanded_dims(const ModelShape *s, int B, int T)
{
    return mla_expanded_dims(s, B, T);
}

static int64_t expanded_tile_bytes(const ModelShape *s, ComputeType compute, int B, int T,
                                   int n_threads, bool is_training)
{
    const AttentionDims dims = expanded_dims(s, B, T);
    return max_int64(attention_scratch_bytes(&dims, compute, n_threads, is_training),
                     head_norm_scratch_bytes(s, (int64_t)B * T, is_training));
}

static void attend_expanded(const AttentionSaved *saved, const AttentionContext *context)
{
    const AttentionDims dims = expanded_dims(context->shape, context->B, context->T);
    attention_forward(context->compute, saved->out, saved->lse, saved->qkv, context->tiles, &dims);
}

static void attend_expanded_backward(Rows d_qkv, LayerParams *grads, Rows d_out,
                                     const AttentionSaved *saved, const AttentionContext *context)
{
    const AttentionDims dims = expanded_dims(context->shape, context->B, context->T);
    (void)grads; // no weights are read
    attention_backward(context->compute, d_qkv, d_out, saved->out, saved->lse, saved->qkv,
                       context->tiles, &dims);
}

// ---- MHA ---------------------------------------------------------------------------------------

static bool mha_fits(const ModelShape *s, ComputeType compute, int T)
{
    (void)compute, (void)T;
    return !shape_is_mla(s);
}

// The whole row [q | k | v] is the product's output: neither scratch nor a latent is needed.
static AttentionWidths mha_widths(const ModelShape *s)
{
    return (AttentionWidths){.qkv = shape_dim(s, DIM_Q) + 2 * shape_dim(s, DIM_KV),
                             .heads = head_norm_width(s)};
}

static void project_mha(const AttentionSaved *saved, Rows normed, const AttentionContext *context)
{
    mha_forward(saved->qkv, saved->heads, normed, context);
}

static void project_mha_backward(Rows d_normed, LayerParams *grads, Rows d_qkv, Rows normed,
                                 const AttentionSaved *saved, const AttentionContext *context)
{
    mha_backward(d_normed, grads, d_qkv, saved->heads, normed, context);
}

// ---- MLA, keys and values expanded -------------------------------------------------------------

static bool mla_expanded_fits(const ModelShape *s, ComputeType compute, int T)
{
    (void)compute, (void)T;
    return shape_is_mla(s);
}

// `projected` and `expanded` are scratch shared by all layers; only the latent and the rows of qkv
// stay for backward.
static AttentionWidths mla_expanded_widths(const ModelShape *s)
{
    const AttentionDims dims = mla_expanded_dims(s, 1, 1);
    return (AttentionWidths){
        .qkv = attention_row(&dims),
        .latent = shape_dim(s, DIM_LATENT),
        .heads = head_norm_width(s),
        .projected = mla_projected_width(s),
        .expanded = mla_expanded_width(s),
    };
}

// The norm of a latent uses the scratch before attention does, or after it.
static int64_t with_norm_bytes(int64_t attention_bytes, const ModelShape *s, int B, int T,
                               bool is_training)
{
    return max_int64(attention_bytes, latent_norm_scratch_bytes(shape_dim(s, DIM_NORM),
                                                                (int64_t)B * T, is_training));
}

static int64_t mla_expanded_tile_bytes(const ModelShape *s, ComputeType compute, int B, int T,
                                       int n_threads, bool is_training)
{
    return with_norm_bytes(expanded_tile_bytes(s, compute, B, T, n_threads, is_training), s, B, T,
                           is_training);
}

static void project_mla_expanded(const AttentionSaved *saved, Rows normed,
                                 const AttentionContext *context)
{
    mla_forward(saved->qkv, saved->latent, saved->heads, normed, context);
}

static void project_mla_expanded_backward(Rows d_normed, LayerParams *grads, Rows d_qkv,
                                          Rows normed, const AttentionSaved *saved,
                                          const AttentionContext *context)
{
    mla_backward(d_normed, grads, d_qkv, saved->latent, saved->heads, normed, context);
}

// ---- MLA in the latent space -------------------------------------------------------------------

// Normed keys are no linear function of the latent: each has a factor of its own.
static bool mla_latent_fits(const ModelShape *s, ComputeType compute, int T)
{
    const LatentDims dims = mla_latent_dims(s, 1, T);
    return shape_is_mla(s) && !shape_is_shared(s) && !s->qk_norm &&
           latent_attention_pays(&dims, compute);
}

// Saves no expanded keys and values. `out` is values U_v^T, one product away from what is saved, so
// backward computes it again instead of keeping [N, Q] per layer. A norm of the latent is made in
// place in qkv: what it was before is saved beside it.
static AttentionWidths mla_latent_widths(const ModelShape *s)
{
    return (AttentionWidths){
        .qkv = mla_projected_width(s),
        .latent = shape_dim(s, DIM_NORM),
        .values = s->n_heads * shape_dim(s, DIM_UP_INPUT),
        .remakes_out = true,
    };
}

static int64_t mla_latent_tile_bytes(const ModelShape *s, ComputeType compute, int B, int T,
                                     int n_threads, bool is_training)
{
    const LatentDims dims = mla_latent_dims(s, B, T);
    return with_norm_bytes(attention_latent_scratch_bytes(&dims, compute, n_threads, is_training),
                           s, B, T, is_training);
}

static void project_mla_latent(const AttentionSaved *saved, Rows normed,
                               const AttentionContext *context)
{
    mla_latent_forward(saved->qkv, normed, context);
    if (context->shape->latent_norm)
        latent_norm_forward(saved->qkv, saved->latent, context);
}

static void project_mla_latent_backward(Rows d_normed, LayerParams *grads, Rows d_qkv, Rows normed,
                                        const AttentionSaved *saved,
                                        const AttentionContext *context)
{
    if (context->shape->latent_norm)
        latent_norm_backward(d_qkv, grads, saved->latent, context);
    mla_latent_backward(d_normed, grads, d_qkv, normed, context);
}

// Members of backward stay NULL in forward.
static LatentArrays latent_arrays(const AttentionSaved *saved, const AttentionContext *context)
{
    return (LatentArrays){
        .qkv = saved->qkv,
        .up_k = context->weights->up_k,
        .up_v = context->weights->up_v,
        .out = saved->out,
        .values = saved->values,
        .lse = saved->lse,
    };
}

static void attend_latent(const AttentionSaved *saved, const AttentionContext *context)
{
    const LatentDims dims = mla_latent_dims(context->shape, context->B, context->T);
    const LatentArrays arrays = latent_arrays(saved, context);
    attention_latent_forward(context->compute, &arrays, context->tiles, &dims);
}

static void attend_latent_backward(Rows d_qkv, LayerParams *grads, Rows d_out,
                                   const AttentionSaved *saved, const AttentionContext *context)
{
    const LatentDims dims = mla_latent_dims(context->shape, context->B, context->T);
    LatentArrays arrays = latent_arrays(saved, context);
    arrays.d_out = d_out;
    arrays.d_qkv = d_qkv;
    arrays.d_up_k = grads->up_k;
    arrays.d_up_v = grads->up_v;
    arrays.add_gradients = context->add_gradients;
    attention_latent_backward(context->compute, &arrays, context->tiles, &dims);
}

static bool shared_latent_fits(const ModelShape *s, ComputeType compute, int T)
{
    const LatentDims dims = mla_latent_dims(s, 1, T);
    return shape_is_shared(s) && latent_attention_pays(&dims, compute);
}

// ---- the table ---------------------------------------------------------------------------------

// The latent forms precede the expanded one, which fits any MLA shape: they offer themselves only
// where they are cheaper.
const AttentionForm attention_forms[N_ATTENTION_FORMS] = {
    [ATTENTION_MHA] =
        {
            .name = "mha",
            .fits = mha_fits,
            .widths = mha_widths,
            .tile_bytes = expanded_tile_bytes,
            .project = project_mha,
            .attend = attend_expanded,
            .attend_backward = attend_expanded_backward,
            .project_backward = project_mha_backward,
        },
    [ATTENTION_MLA_LATENT] =
        {
            .name = "mla, latent",
            .fits = mla_latent_fits,
            .widths = mla_latent_widths,
            .tile_bytes = mla_latent_tile_bytes,
            .project = project_mla_latent,
            .attend = attend_latent,
            .attend_backward = attend_latent_backward,
            .project_backward = project_mla_latent_backward,
        },
    [ATTENTION_SHARED_LATENT] =
        {
            .name = "shared, latent",
            .fits = shared_latent_fits,
            .widths = mla_latent_widths,
            .tile_bytes = mla_latent_tile_bytes,
            .project = project_mla_latent,
            .attend = attend_latent,
            .attend_backward = attend_latent_backward,
            .project_backward = project_mla_latent_backward,
        },
    [ATTENTION_MLA_EXPANDED] =
        {
            .name = "mla, expanded",
            .fits = mla_expanded_fits,
            .widths = mla_expanded_widths,
            .tile_bytes = mla_expanded_tile_bytes,
            .project = project_mla_expanded,
            .attend = attend_expanded,
            .attend_backward = attend_expanded_backward,
            .project_backward = project_mla_expanded_backward,
        },
};

const AttentionForm *attention_form(const ModelShape *shape, ComputeType compute, int T)
{
    for (int i = 0; i < N_ATTENTION_FORMS; i++)
        if (attention_forms[i].fits(shape, compute, T))
            return &attention_forms[i];
    CHECK(false, "no form of attention fits d_kv %d, latent %d", shape->d_kv, shape->latent);
    return NULL;
}
