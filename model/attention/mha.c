// The observer sees queries and keys as RoPE is given them, the only moment at which they exist
// unrotated.
#include "model/attention/mha.h"

#include "model/attention/head_norm.h"
#include "model/attention/rotate.h"
#include "model/kernels/bias.h"
#include "model/kernels/linear.h"

// q, k and v lie side by side in the flat vector (model/params.h), and so do their biases: together
// one matrix and one vector.
static int projected_width(const ModelShape *shape)
{
    return shape_dim(shape, DIM_Q) + 2 * shape_dim(shape, DIM_KV);
}

// RoPE in place on queries and keys: direction +1 forward, -1 backward.
static void rotate(Rows qkv, const AttentionContext *context, float direction)
{
    const ModelShape *s = context->shape;
    const int H = s->n_heads, K = s->n_kv_heads, E = s->head_dim, G = H / K, T = context->T;
#pragma omp parallel for schedule(static)
    // Heads 0 .. H-1 are queries, H .. H+K-1 keys; values are not rotated. A query head uses its KV
    // head's pairs, so that both turn by the same angles.
    for (int n = 0; n < context->B * T; n++) {
        const float *cos_row = context->cos_table + (int64_t)(n % T) * (E / 2);
        const float *sin_row = context->sin_table + (int64_t)(n % T) * (E / 2);
        for (int head = 0; head < H + K; head++) {
            const int kv_head = head < H ? head / G : head - H;
            const Rows dims = rows_at(qkv, n, (int64_t)head * E);
            rotate_head(dims, dims, cos_row, sin_row, context->pairs + (int64_t)kv_head * (E / 2),
                        E / 2, direction);
        }
    }
    step_times_mark(context->times, STEP_ROPE);
}

void mha_forward(Rows qkv, Rows heads, Rows normed, const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    const int width = projected_width(s), D = s->d_model, N = context->B * context->T;
    linear_forward(context->compute, qkv, normed, context->weights->q, N, D, width, false);
    if (context->weights->q_bias != NULL)
        bias_forward(qkv, context->weights->q_bias, N, width);
    step_times_mark(context->times, STEP_INPUT);
    const QkObserver *observer = context->qk_observer;
    if (s->qk_norm)
        head_norm_forward(qkv, heads, observer == NULL, context);
    if (observer != NULL)
        observer->call(observer->observer, qkv);
    if (!s->qk_norm || observer != NULL)
        rotate(qkv, context, 1.0f);
}

// The rotation is orthogonal: its gradient is the rotation by the opposite angle.
void mha_backward(Rows d_normed, LayerParams *grads, Rows d_qkv, Rows heads, Rows normed,
                  const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    const int width = projected_width(s), D = s->d_model, N = context->B * context->T;
    if (s->qk_norm)
        head_norm_backward(d_qkv, grads, heads, context);
    else
        rotate(d_qkv, context, -1.0f);
    linear_backward_input(context->compute, d_normed, d_qkv, context->weights->q, N, D, width,
                          false);
    linear_backward_weight(context->compute, grads->q, d_qkv, normed, N, D, width,
                           context->add_gradients);
    bias_backward(grads->q_bias, d_qkv, N, width, context->add_gradients);
    step_times_mark(context->times, STEP_INPUT);
}
