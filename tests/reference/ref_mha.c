// One matrix at a time, and rotation by Hugging Face's rotate_half as it is written there.
#include "tests/reference/ref.h"

#include <stdlib.h>

// The three projections beside each other: columns `first` .. of a row belong to `weight`.
typedef struct Projection {
    float *weight; // [rows, D]
    int first, rows;
} Projection;

static void list_projections(Projection out[3], const LayerParams *w, const ModelShape *s)
{
    int Q = s->n_heads * s->head_dim, KV = s->n_kv_heads * s->head_dim;
    out[0] = (Projection){w->q, 0, Q};
    out[1] = (Projection){w->k, Q, KV};
    out[2] = (Projection){w->v, Q + KV, KV};
}

static int row_width(const ModelShape *s)
{
    return (s->n_heads + 2 * s->n_kv_heads) * s->head_dim;
}

static void project(double *qkv, const float *normed, const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    Projection parts[3];
    list_projections(parts, context->weights, s);
    int D = s->d_model, width = row_width(s);
    for (int64_t n = 0; n < (int64_t)context->B * context->T; n++)
        for (int p = 0; p < 3; p++)
            for (int row = 0; row < parts[p].rows; row++) {
                double sum = 0;
                for (int d = 0; d < D; d++)
                    sum +=
                        (double)parts[p].weight[(int64_t)row * D + d] * (double)normed[n * D + d];
                qkv[n * width + parts[p].first + row] = sum;
            }
}

// x cos + rotate_half(x) sin with rotate_half(x) = (-second half, first half).
static void rotate(double *qkv, const AttentionContext *context, double direction)
{
    const ModelShape *s = context->shape;
    int E = s->head_dim, half = E / 2, n_heads = s->n_heads + s->n_kv_heads;
    double *x = ref_doubles(E);
    for (int64_t n = 0; n < (int64_t)context->B * context->T; n++)
        for (int head = 0; head < n_heads; head++) {
            double *to = qkv + n * row_width(s) + (int64_t)head * E;
            for (int e = 0; e < E; e++)
                x[e] = to[e];
            for (int e = 0; e < E; e++) {
                int64_t angle = n % context->T * half + e % half;
                double turned = e < half ? -x[e + half] : x[e - half];
                to[e] = x[e] * (double)context->cos_table[angle] +
                        turned * direction * (double)context->sin_table[angle];
            }
        }
    free(x);
}

void exact_mha_forward(double *qkv, const float *normed, const AttentionContext *context)
{
    project(qkv, normed, context);
    rotate(qkv, context, 1.0);
}

void ref_mha_forward(float *qkv, const float *normed, const AttentionContext *context)
{
    int64_t count = (int64_t)context->B * context->T * row_width(context->shape);
    double *exact = ref_doubles(count);
    exact_mha_forward(exact, normed, context);
    ref_narrow(qkv, exact, count);
    free(exact);
}

void ref_mha_backward(float *d_normed, LayerParams *grads, const float *d_qkv, const float *normed,
                      const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    Projection parts[3], d_parts[3];
    list_projections(parts, context->weights, s);
    list_projections(d_parts, grads, s);
    int D = s->d_model, width = row_width(s);
    int64_t N = (int64_t)context->B * context->T;
    double *dx = ref_doubles(N * D), *dy = ref_doubles(N * width);
    for (int64_t i = 0; i < N * width; i++)
        dy[i] = (double)d_qkv[i];
    rotate(dy, context, -1.0);
    for (int p = 0; p < 3; p++)
        for (int row = 0; row < parts[p].rows; row++)
            for (int d = 0; d < D; d++) {
                double dw = 0;
                for (int64_t n = 0; n < N; n++) {
                    double d_row = dy[n * width + parts[p].first + row];
                    dw += d_row * (double)normed[n * D + d];
                    dx[n * D + d] += d_row * (double)parts[p].weight[(int64_t)row * D + d];
                }
                float *to = &d_parts[p].weight[(int64_t)row * D + d];
                *to = (float)((double)*to + dw);
            }
    ref_narrow(d_normed, dx, N * D);
    free(dx);
    free(dy);
}
