// The residual stream runs through the layers: x_mid = x_in + attention(norm(x_in)), then
// x_out = x_mid + ffn(norm(x_mid)). The products add to the residual themselves (beta = 1).
// Normed inputs and SwiGLU's output are not kept: computing them again costs one pass over memory,
// keeping them would take two thirds more of it.
//
// In backward `dx` is the gradient of the residual stream, in place from layer to layer. A form of
// attention is a row of model/attention/attention_form.h; nothing here depends on which one it is.
#include "model/transformer/transformer.h"

#include "base/simd.h"
#include "model/kernels/bias.h"
#include "model/kernels/half.h"
#include "model/kernels/head.h"
#include "model/kernels/linear.h"
#include "model/kernels/rmsnorm.h"
#include "model/kernels/rope.h"
#include "model/kernels/swiglu.h"

#include <string.h>

void transformer_start(Workspace *ws, const Model *model)
{
    const ModelShape *s = &model->shape;
    rope_table(ws->cos_table, ws->sin_table, ws->T, s->head_dim, s->rope_theta, &s->rope_scaling);
    if (layer_set_count(&s->no_rope) > 0)
        rope_identity(ws->no_rope_cos, ws->no_rope_sin, ws->T, s->head_dim);
}

// All that a form of attention is given besides its data.
static AttentionContext attention_context(const Workspace *ws, const Model *model, int layer)
{
    const bool rotates = shape_rotates(&model->shape, layer);
    return (AttentionContext){
        .compute = ws->compute,
        .shape = &model->shape,
        .weights = &model->params.layers[layer],
        .pairs = model_pairs(model, layer, 0),
        .cos_table = rotates ? ws->cos_table : ws->no_rope_cos,
        .sin_table = rotates ? ws->sin_table : ws->no_rope_sin,
        .B = ws->B,
        .T = ws->T,
        .projected = ws->projected,
        .expanded = ws->expanded,
        .tiles = ws->attention_tiles,
        .add_gradients = !ws->fresh_gradients,
        .times = ws->times,
    };
}

// Does nothing for the gradient of a frozen weight, NULL.
static void clear(float *values, int64_t count)
{
    if (values != NULL)
        memset(values, 0, (size_t)count * sizeof(float));
}

// The observer of calibration: sums of pair norms of a layer's queries and keys.
typedef struct ScoredLayer {
    RopeScores *scores;
    int layer;
    int64_t n_tokens;
} ScoredLayer;

// Called on original models only: an MLA layer has no keys before RoPE to score.
static void score_layer(void *observer, Rows qkv)
{
    const ScoredLayer *scored = observer;
    rope_scores_add(scored->scores, scored->layer, qkv, scored->n_tokens);
}

// attention(norm(x_in)) -> saved->attention.out. With residual also x_in -> residual.
static void attention_forward_from_input(Workspace *ws, const Model *model, int layer,
                                         float *residual, RopeScores *scores)
{
    const ModelShape *s = &model->shape;
    const LayerSaved *saved = &ws->layers[layer];
    const int N = ws->B * ws->T;
    ScoredLayer scored = {scores, layer, N};
    const QkObserver observer = {score_layer, &scored};
    AttentionContext context = attention_context(ws, model, layer);
    context.qk_observer = scores != NULL ? &observer : NULL;
    rmsnorm_forward_keeping(saved->attn_normalized, ws->normed, saved->attn_inv_rms, residual,
                            saved->x_in, model->params.layers[layer].attn_norm, N, s->d_model,
                            (float)s->rms_eps);
    step_times_mark(ws->times, STEP_NORM);
    ws->form->project(&saved->attention, ws->normed, &context);
    ws->form->attend(&saved->attention, &context);
    step_times_mark(ws->times, STEP_ATTENTION);
}

HOT static void add_row(float *restrict to, const float *restrict from, int D)
{
#pragma omp simd
    for (int d = 0; d < D; d++)
        to[d] += from[d];
}

static void project_output(const Workspace *ws, Rows out, Rows heads, const LayerParams *w, int Q,
                           int D, bool add)
{
    const int N = ws->B * ws->T;
    linear_forward(ws->compute, out, heads, w->o, N, Q, D, add);
    if (w->o_bias != NULL)
        bias_forward(out, w->o_bias, N, D);
}

// What the output projection gives is added to x_mid by the product itself, unless the attention
// loss reads it: then it is apart in match->output first, also where forward is repeated.
static void add_output(const Workspace *ws, const AttentionMatch *match, Rows heads,
                       const LayerParams *w, float *x_mid, int Q, int D)
{
    const int N = ws->B * ws->T;
    if (match == NULL) {
        project_output(ws, rows_f32(x_mid, D), heads, w, Q, D, true);
        return;
    }
    project_output(ws, rows_f32(match->output, D), heads, w, Q, D, false);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        add_row(x_mid + (int64_t)n * D, match->output + (int64_t)n * D, D);
}

// x_mid = x_in + o(attention(norm(x_in)))
static void attention_block_forward(Workspace *ws, const Model *model, int layer,
                                    RopeScores *scores)
{
    const ModelShape *s = &model->shape;
    const LayerSaved *saved = &ws->layers[layer];
    attention_forward_from_input(ws, model, layer, saved->x_mid, scores);
    add_output(ws, ws->keeps != NULL ? ws->keeps : ws->follows, saved->attention.out,
               &model->params.layers[layer], saved->x_mid, shape_dim(s, DIM_Q), s->d_model);
    step_times_mark(ws->times, STEP_OUTPUT);
}

// The gradient of the residual stream as products read it: rounded once for the two of a block.
static Rows product_rows(const Workspace *ws, int D)
{
    return ws->compute == COMPUTE_BFLOAT16 ? ws->dx_rounded : rows_f32(ws->dx, D);
}

// What a norm's backward reads: the residual stream before it, or rows that stand in for it.
static Rows norm_input(Rows normalized, float *stream, int D)
{
    return normalized.data != NULL ? normalized : rows_f32(stream, D);
}

// dx: gradient of x_mid on entry, of x_in on return. attend_backward() may compute `out` again,
// which o's gradient then reads.
static void attention_block_backward(Workspace *ws, const Model *model, int layer, Params *grads)
{
    const ModelShape *s = &model->shape;
    const LayerParams *w = &model->params.layers[layer];
    const LayerSaved *saved = &ws->layers[layer];
    LayerParams *dw = &grads->layers[layer];
    int N = ws->B * ws->T, D = s->d_model, Q = shape_dim(s, DIM_Q);
    const AttentionContext context = attention_context(ws, model, layer);
    const bool adds = !ws->fresh_gradients;
    const Rows dx = ws->follows == NULL
                        ? product_rows(ws, D)
                        : attention_match_gradient(ws->follows, layer, ws->dx, ws->B);
    linear_backward_input(ws->compute, ws->d_attn_out, dx, w->o, N, Q, D, false);
    step_times_mark(ws->times, STEP_OUTPUT);
    ws->form->attend_backward(ws->d_qkv, dw, ws->d_attn_out, &saved->attention, &context);
    step_times_mark(ws->times, STEP_ATTENTION);
    linear_backward_weight(ws->compute, dw->o, dx, saved->attention.out, N, Q, D, adds);
    bias_backward(dw->o_bias, dx, N, D, adds);
    step_times_mark(ws->times, STEP_OUTPUT);
    const Rows x = norm_input(saved->attn_normalized, saved->x_in, D);
    rmsnorm_apply(ws->normed, saved->attn_inv_rms, x, w->attn_norm, N, D);
    step_times_mark(ws->times, STEP_NORM);
    ws->form->project_backward(rows_f32(ws->d_normed, D), dw, ws->d_qkv, ws->normed,
                               &saved->attention, &context);
    // RMSNorm's weight gradient is always added to, so a fresh one starts from zero.
    if (!adds)
        clear(dw->attn_norm, D);
    rmsnorm_backward(ws->dx, ws->dx_rounded, dw->attn_norm, (Rows){0}, ws->d_normed,
                     saved->attn_inv_rms, x, w->attn_norm, N, D);
    step_times_mark(ws->times, STEP_NORM);
}

// gate_up = gate | up of norm(x_mid), in one product. Also what RECOMPUTE_LAYER makes again. With
// residual also x_mid -> residual.
static void ffn_expand(Workspace *ws, const Model *model, int layer, float *residual)
{
    const ModelShape *s = &model->shape;
    const LayerParams *w = &model->params.layers[layer];
    const LayerSaved *saved = &ws->layers[layer];
    int N = ws->B * ws->T, D = s->d_model, F = s->d_ffn;
    rmsnorm_forward_keeping(saved->ffn_normalized, ws->normed, saved->ffn_inv_rms, residual,
                            saved->x_mid, w->ffn_norm, N, D, (float)s->rms_eps);
    step_times_mark(ws->times, STEP_NORM);
    linear_forward(ws->compute, saved->gate_up, ws->normed, w->gate, N, D, 2 * F, false);
    step_times_mark(ws->times, STEP_FFN);
}

// x_out = x_mid + down(swiglu(norm(x_mid)))
static void ffn_block_forward(Workspace *ws, const Model *model, int layer, float *x_out)
{
    const ModelShape *s = &model->shape;
    const LayerSaved *saved = &ws->layers[layer];
    int N = ws->B * ws->T, D = s->d_model, F = s->d_ffn;
    ffn_expand(ws, model, layer, x_out);
    swiglu_forward(ws->act, saved->gate_up, N, F);
    step_times_mark(ws->times, STEP_SWIGLU);
    linear_forward(ws->compute, rows_f32(x_out, D), ws->act, model->params.layers[layer].down, N, F,
                   D, true);
    step_times_mark(ws->times, STEP_FFN);
}

// dx: gradient of x_out on entry, of x_mid on return. Uses up gate_up. The order keeps one buffer
// `act` enough: gradient of act, then act itself for the gradient of down.
static void ffn_block_backward(Workspace *ws, const Model *model, int layer, Params *grads)
{
    const ModelShape *s = &model->shape;
    const LayerParams *w = &model->params.layers[layer];
    const LayerSaved *saved = &ws->layers[layer];
    LayerParams *dw = &grads->layers[layer];
    int N = ws->B * ws->T, D = s->d_model, F = s->d_ffn;
    const bool adds = !ws->fresh_gradients;
    const Rows dx = product_rows(ws, D);
    linear_backward_input(ws->compute, ws->act, dx, w->down, N, F, D, false);
    step_times_mark(ws->times, STEP_FFN);
    swiglu_backward(saved->gate_up, ws->act, N, F);
    step_times_mark(ws->times, STEP_SWIGLU);
    linear_backward_weight(ws->compute, dw->down, dx, ws->act, N, F, D, adds);
    linear_backward_input(ws->compute, rows_f32(ws->d_normed, D), saved->gate_up, w->gate, N, D,
                          2 * F, false);
    step_times_mark(ws->times, STEP_FFN);
    if (!adds)
        clear(dw->ffn_norm, D);
    rmsnorm_backward(ws->dx, ws->dx_rounded, dw->ffn_norm, ws->normed, ws->d_normed,
                     saved->ffn_inv_rms, norm_input(saved->ffn_normalized, saved->x_mid, D),
                     w->ffn_norm, N, D);
    step_times_mark(ws->times, STEP_NORM);
    linear_backward_weight(ws->compute, dw->gate, saved->gate_up, ws->normed, N, D, 2 * F, adds);
    step_times_mark(ws->times, STEP_FFN);
}

HOT static void round_row(float *restrict to, const float *restrict from, int D)
{
#pragma omp simd
    for (int d = 0; d < D; d++)
        to[d] = half_bf16_to_f32(half_f32_to_bf16(from[d]));
}

// A gather of embedding rows; Llama does not scale them. In bfloat16 they are rounded, since a rank
// may hold the rows that others update rounded already.
static void embed_forward(float *x, ComputeType compute, const float *embed, const int32_t *inputs,
                          int N, int D)
{
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++) {
        const float *row = embed + (int64_t)inputs[n] * D;
        if (compute == COMPUTE_BFLOAT16)
            round_row(x + (int64_t)n * D, row, D);
        else
            memcpy(x + (int64_t)n * D, row, (size_t)D * sizeof(float));
    }
}

// Training hangs its communication here: parameters of a layer may still be arriving before
// forward, and gradients may be reduced as soon as they are final (train/).
static void call_at_layer(const LayerCallback *callback, int layer)
{
    if (callback->call != NULL)
        callback->call(callback->context, layer);
}

void transformer_embed(const Workspace *ws, const Model *model, const int32_t *inputs, float *x)
{
    embed_forward(x, ws->compute, model->params.embed, inputs, ws->B * ws->T, model->shape.d_model);
}

static void layer_forward(Workspace *ws, const Model *model, int layer, float *x_out,
                          RopeScores *scores)
{
    attention_block_forward(ws, model, layer, scores);
    if (ws->keeps != NULL)
        attention_match_keep(ws->keeps, layer, ws->B);
    if (ws->follows != NULL)
        attention_match_compare(ws->follows, layer, ws->B);
    ffn_block_forward(ws, model, layer, x_out);
}

void transformer_layer(Workspace *ws, const Model *model, int layer, float *x)
{
    memcpy(ws->layers[layer].x_in, x,
           (size_t)(ws->B * ws->T) * (size_t)model->shape.d_model * sizeof *x);
    layer_forward(ws, model, layer, x, NULL);
}

Rows transformer_heads(Workspace *ws, const Model *model, int layer, const float *x)
{
    memcpy(ws->layers[layer].x_in, x,
           (size_t)(ws->B * ws->T) * (size_t)model->shape.d_model * sizeof *x);
    attention_forward_from_input(ws, model, layer, NULL, NULL);
    return ws->layers[layer].attention.out;
}

void transformer_attention(Workspace *ws, const Model *model, int layer, const float *x, float *out)
{
    const ModelShape *s = &model->shape;
    const Rows heads = transformer_heads(ws, model, layer, x);
    project_output(ws, rows_f32(out, s->d_model), heads, &model->params.layers[layer],
                   shape_dim(s, DIM_Q), s->d_model, false);
}

void transformer_attention_backward(Workspace *ws, const Model *model, int layer,
                                    const float *d_out, Params *grads)
{
    const int D = model->shape.d_model, N = ws->B * ws->T;
    memcpy(ws->dx, d_out, (size_t)N * (size_t)D * sizeof *d_out);
    for (int n = 0; n < N && ws->compute == COMPUTE_BFLOAT16; n++)
        dtype_narrow(rows_at(ws->dx_rounded, n, 0).data, DTYPE_BF16, d_out + (int64_t)n * D, D);
    attention_block_backward(ws, model, layer, grads);
}

void transformer_ffn(Workspace *ws, const Model *model, int layer, float *x)
{
    memcpy(ws->layers[layer].x_mid, x,
           (size_t)(ws->B * ws->T) * (size_t)model->shape.d_model * sizeof *x);
    ffn_block_forward(ws, model, layer, x);
}

void transformer_forward(Workspace *ws, const Model *model, const int32_t *inputs,
                         RopeScores *scores)
{
    const ModelShape *s = &model->shape;
    step_times_start(ws->times, STEP_FORWARD);
    call_at_layer(&ws->before_layer, -1);
    transformer_embed(ws, model, inputs, ws->layers[0].x_in);
    step_times_mark(ws->times, STEP_EMBEDDING);
    for (int l = 0; l < s->n_layers; l++) {
        call_at_layer(&ws->before_layer, l);
        layer_forward(ws, model, l, l + 1 < s->n_layers ? ws->layers[l + 1].x_in : ws->hidden,
                      scores);
    }
}

void transformer_normed(Workspace *ws, const Model *model, Rows normed)
{
    const ModelShape *s = &model->shape;
    step_times_start(ws->times, STEP_FORWARD);
    call_at_layer(&ws->before_layer, s->n_layers);
    rmsnorm_forward(normed, ws->inv_rms, NULL, ws->hidden, model->params.norm, ws->B * ws->T,
                    s->d_model, (float)s->rms_eps);
    step_times_mark(ws->times, STEP_NORM);
}

// That a loss may write gradients.
static void check_gradients(const Workspace *ws)
{
    CHECK(ws->policy != FORWARD_ONLY, "gradients in a workspace that was placed for forward only");
    CHECK(ws->fresh_gradients || !gradient_reuse_is_used(&ws->reuse),
          "gradients are added to, but their memory holds activations");
}

double transformer_loss(Workspace *ws, const Model *model, const int32_t *targets, float scale,
                        Params *grads)
{
    const ModelShape *s = &model->shape;
    const bool wants_gradient = grads != NULL;
    transformer_normed(ws, model, ws->head_in);
    if (wants_gradient)
        check_gradients(ws);
    const double sum = head_loss(ws->compute, wants_gradient ? ws->d_head_in : NULL,
                                 wants_gradient ? grads->head : NULL, ws->head_scratch, ws->head_in,
                                 model->params.head, targets, ws->B * ws->T, s->d_model,
                                 s->vocab_size, scale, !ws->fresh_gradients);
    step_times_mark(ws->times, STEP_HEAD);
    return sum;
}

HeadLosses transformer_kl_losses(Workspace *ws, const Model *model, const int32_t *targets,
                                 const HeadTeacher *teacher, const HeadWeights *weights,
                                 void *scratch, float scale, Params *grads)
{
    const ModelShape *s = &model->shape;
    transformer_normed(ws, model, ws->head_in);
    check_gradients(ws);
    const HeadLosses sums = head_kl_losses(
        ws->compute, ws->d_head_in, grads->head, scratch, ws->head_in, model->params.head, targets,
        teacher, weights, ws->B * ws->T, s->d_model, s->vocab_size, scale, !ws->fresh_gradients);
    step_times_mark(ws->times, STEP_HEAD);
    return sums;
}

// Adds rows to the embedding's gradient. Each thread owns a range of columns, so that a token that
// occurs twice has one writer, and the order of its sum is that of the tokens.
static void embed_backward(float *d_embed, const float *dx, const int32_t *inputs, int N, int D)
{
    enum { COLUMNS = 64 };
#pragma omp parallel for schedule(static)
    for (int first = 0; first < D; first += COLUMNS) {
        int end = first + COLUMNS < D ? first + COLUMNS : D;
        for (int n = 0; n < N; n++) {
            float *row = d_embed + (int64_t)inputs[n] * D;
            for (int d = first; d < end; d++)
                row[d] += dx[(int64_t)n * D + d];
        }
    }
}

void transformer_backward(Workspace *ws, const Model *model, const int32_t *inputs, Params *grads)
{
    const ModelShape *s = &model->shape;
    const int N = ws->B * ws->T, D = s->d_model;
    step_times_start(ws->times, STEP_BACKWARD);
    // The residual stream ends at the last norm: no gradient comes around it.
    clear(ws->dx, (int64_t)N * D);
    if (ws->fresh_gradients)
        clear(grads->norm, D);
    rmsnorm_backward(ws->dx, ws->dx_rounded, grads->norm, (Rows){0}, ws->d_head_in, ws->inv_rms,
                     rows_f32(ws->hidden, D), model->params.norm, N, D);
    step_times_mark(ws->times, STEP_NORM);
    call_at_layer(&ws->after_backward, s->n_layers);
    for (int l = s->n_layers - 1; l >= 0; l--) {
        // Layers share what is recomputed. The last layer's is still there from forward.
        bool is_shared = l < s->n_layers - 1;
        if (is_shared && ws->policy == RECOMPUTE_LAYER) {
            attention_block_forward(ws, model, l, NULL);
            ffn_expand(ws, model, l, NULL);
        }
        ffn_block_backward(ws, model, l, grads);
        if (is_shared && ws->policy == RECOMPUTE_ATTENTION)
            attention_forward_from_input(ws, model, l, NULL, NULL);
        attention_block_backward(ws, model, l, grads);
        call_at_layer(&ws->after_backward, l);
    }
    if (ws->fresh_gradients && !s->tied_head) // a tied one holds the head's gradient already
        clear(grads->embed, (int64_t)s->vocab_size * D);
    if (grads->embed != NULL)
        embed_backward(grads->embed, ws->dx, inputs, N, D);
    step_times_mark(ws->times, STEP_EMBEDDING);
    call_at_layer(&ws->after_backward, -1);
}

void transformer_logits(Workspace *ws, const Model *model, int first, int count, float *logits)
{
    const ModelShape *s = &model->shape;
    int D = s->d_model;
    // Written to its own place, with the same numbers: a backward that follows reads it.
    rmsnorm_forward(ws->normed, ws->inv_rms + first, NULL, ws->hidden + (int64_t)first * D,
                    model->params.norm, count, D, (float)s->rms_eps);
    linear_forward(ws->compute, rows_f32(logits, s->vocab_size), ws->normed, model->params.head,
                   count, D, s->vocab_size, false);
}
