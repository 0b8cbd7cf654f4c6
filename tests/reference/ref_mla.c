// MLA from the definition of its tensors in model/params.h: every number of every head is looked up
// by its row in its own matrix, token by token. Nothing is stacked or gathered.
#include "tests/reference/ref.h"

#include <stdlib.h>
#include <string.h>

// A row of a weight matrix, its gradient's row, and what it multiplies. Forward and backward walk
// the same rows through this.
typedef struct Row {
    const float *weight;
    float *grad; // NULL in forward
    int64_t width;
} Row;

static Row find_row(const float *weight, float *grad, int64_t row, int64_t width)
{
    return (Row){weight + row * width, grad == NULL ? NULL : grad + row * width, width};
}

static double multiply(Row row, const double *x)
{
    double sum = 0;
    for (int64_t i = 0; i < row.width; i++)
        sum += (double)row.weight[i] * x[i];
    return sum;
}

// dx += dy * row, d_row += dy * x.
static void multiply_backward(Row row, double *dx, const double *x, double dy)
{
    for (int64_t i = 0; i < row.width; i++) {
        dx[i] += dy * (double)row.weight[i];
        row.grad[i] = (float)((double)row.grad[i] + dy * x[i]);
    }
}

// RoPE dim i in 0..2P-1 of a head belongs to pair i % P; its partner is the other half.
static void turn(double *cosine, double *sine, const AttentionContext *context, int kv_head, int i,
                 int t)
{
    int P = context->shape->rope_pairs, half = context->shape->head_dim / 2;
    int pair = context->pairs[kv_head * P + i % P];
    *cosine = (double)context->cos_table[(int64_t)t * half + pair];
    *sine = (double)context->sin_table[(int64_t)t * half + pair];
}

// 2P numbers rotated: out = R(t) in, or its transpose.
static void rotate(double *out, const double *in, const AttentionContext *context, int kv_head,
                   int t, double direction)
{
    int P = context->shape->rope_pairs;
    for (int i = 0; i < 2 * P; i++) {
        double cosine, sine, other = i < P ? -in[i + P] : in[i - P];
        turn(&cosine, &sine, context, kv_head, i, t);
        out[i] = in[i] * cosine + direction * other * sine;
    }
}

// The latent's part that keys or values read starts here.
static int latent_of_values(const ModelShape *s)
{
    return s->svd == SVD_SPLIT ? s->n_kv_heads * s->d_kv / 2 : 0;
}

static int latent_width(const ModelShape *s)
{
    return s->n_kv_heads * s->d_kv / (s->svd == SVD_SPLIT ? 2 : 1);
}

// Row of number e (in 0..E-1, RoPE dims first) of a query head.
static Row query_row(const AttentionContext *context, const LayerParams *g, int h, int e)
{
    const ModelShape *s = context->shape;
    int rope = 2 * s->rope_pairs, nope = s->head_dim - rope;
    int64_t row = e < rope ? h * rope + e : s->n_heads * rope + h * nope + (e - rope);
    return find_row(context->weights->q, g == NULL ? NULL : g->q, row, s->d_model);
}

static Row key_rope_row(const AttentionContext *context, const LayerParams *g, int j, int e)
{
    const ModelShape *s = context->shape;
    return find_row(context->weights->k_r, g == NULL ? NULL : g->k_r, j * 2 * s->rope_pairs + e,
                    s->d_model);
}

static Row key_nope_row(const AttentionContext *context, const LayerParams *g, int j, int e)
{
    const ModelShape *s = context->shape;
    return find_row(context->weights->up_k, g == NULL ? NULL : g->up_k,
                    j * (s->head_dim - 2 * s->rope_pairs) + e, latent_width(s));
}

static Row value_row(const AttentionContext *context, const LayerParams *g, int j, int e)
{
    const ModelShape *s = context->shape;
    return find_row(context->weights->up_v, g == NULL ? NULL : g->up_v, j * s->head_dim + e,
                    latent_width(s));
}

static Row latent_row(const AttentionContext *context, const LayerParams *g, int r)
{
    return find_row(context->weights->down_kv, g == NULL ? NULL : g->down_kv, r,
                    context->shape->d_model);
}

static void widen(double *to, const float *from, int count)
{
    for (int i = 0; i < count; i++)
        to[i] = (double)from[i];
}

static void forward_token(double *qkv, double *latent, const double *normed,
                          const AttentionContext *context, int t)
{
    const ModelShape *s = context->shape;
    int H = s->n_heads, K = s->n_kv_heads, E = s->head_dim, rope = 2 * s->rope_pairs;
    double *still = ref_doubles(rope);
    for (int r = 0; r < K * s->d_kv; r++)
        latent[r] = multiply(latent_row(context, NULL, r), normed);
    for (int h = 0; h < H; h++) {
        for (int e = 0; e < rope; e++)
            still[e] = multiply(query_row(context, NULL, h, e), normed);
        rotate(qkv + h * E, still, context, h / (H / K), t, 1.0);
        for (int e = rope; e < E; e++)
            qkv[h * E + e] = multiply(query_row(context, NULL, h, e), normed);
    }
    for (int j = 0; j < K; j++) {
        double *k = qkv + (H + j) * E, *v = qkv + (H + K + j) * E;
        for (int e = 0; e < rope; e++)
            still[e] = multiply(key_rope_row(context, NULL, j, e), normed);
        rotate(k, still, context, j, t, 1.0);
        for (int e = rope; e < E; e++)
            k[e] = multiply(key_nope_row(context, NULL, j, e - rope), latent);
        for (int e = 0; e < E; e++)
            v[e] = multiply(value_row(context, NULL, j, e), latent + latent_of_values(s));
    }
    free(still);
}

static void backward_token(double *d_normed, LayerParams *grads, const double *d_qkv,
                           const double *latent, const double *normed,
                           const AttentionContext *context, int t)
{
    const ModelShape *s = context->shape;
    int H = s->n_heads, K = s->n_kv_heads, E = s->head_dim, rope = 2 * s->rope_pairs;
    double *d_still = ref_doubles(rope), *d_latent = ref_doubles(K * s->d_kv);
    for (int h = 0; h < H; h++) {
        rotate(d_still, d_qkv + h * E, context, h / (H / K), t, -1.0);
        for (int e = 0; e < E; e++)
            multiply_backward(query_row(context, grads, h, e), d_normed, normed,
                              e < rope ? d_still[e] : d_qkv[h * E + e]);
    }
    for (int j = 0; j < K; j++) {
        const double *dk = d_qkv + (H + j) * E, *dv = d_qkv + (H + K + j) * E;
        rotate(d_still, dk, context, j, t, -1.0);
        for (int e = 0; e < rope; e++)
            multiply_backward(key_rope_row(context, grads, j, e), d_normed, normed, d_still[e]);
        for (int e = rope; e < E; e++)
            multiply_backward(key_nope_row(context, grads, j, e - rope), d_latent, latent, dk[e]);
        for (int e = 0; e < E; e++)
            multiply_backward(value_row(context, grads, j, e), d_latent + latent_of_values(s),
                              latent + latent_of_values(s), dv[e]);
    }
    for (int r = 0; r < K * s->d_kv; r++)
        multiply_backward(latent_row(context, grads, r), d_normed, normed, d_latent[r]);
    free(d_still);
    free(d_latent);
}

void exact_mla_forward(double *qkv, double *latent, const float *normed,
                       const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    int64_t width = (int64_t)(s->n_heads + 2 * s->n_kv_heads) * s->head_dim;
    int64_t R = (int64_t)s->n_kv_heads * s->d_kv;
    double *token = ref_doubles(s->d_model);
    for (int64_t n = 0; n < (int64_t)context->B * context->T; n++) {
        widen(token, normed + n * s->d_model, s->d_model);
        forward_token(qkv + n * width, latent + n * R, token, context, (int)(n % context->T));
    }
    free(token);
}

void ref_mla_forward(float *qkv, float *latent, const float *normed,
                     const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    int64_t N = (int64_t)context->B * context->T;
    int64_t width = (int64_t)(s->n_heads + 2 * s->n_kv_heads) * s->head_dim;
    int64_t R = (int64_t)s->n_kv_heads * s->d_kv;
    double *exact_qkv = ref_doubles(N * width), *exact_latent = ref_doubles(N * R);
    exact_mla_forward(exact_qkv, exact_latent, normed, context);
    ref_narrow(qkv, exact_qkv, N * width);
    ref_narrow(latent, exact_latent, N * R);
    free(exact_qkv);
    free(exact_latent);
}

void ref_mla_backward(float *d_normed, LayerParams *grads, const float *d_qkv, const float *latent,
                      const float *normed, const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    int D = s->d_model, R = s->n_kv_heads * s->d_kv;
    int width = (s->n_heads + 2 * s->n_kv_heads) * s->head_dim;
    (void)latent;
    double *token = ref_doubles(D), *d_token = ref_doubles(D), *d_row = ref_doubles(width);
    double *row = ref_doubles(width), *latent_token = ref_doubles(R);
    for (int64_t n = 0; n < (int64_t)context->B * context->T; n++) {
        int t = (int)(n % context->T);
        widen(token, normed + n * D, D);
        widen(d_row, d_qkv + n * width, width);
        memset(d_token, 0, (size_t)D * sizeof *d_token);
        forward_token(row, latent_token, token, context, t);
        backward_token(d_token, grads, d_row, latent_token, token, context, t);
        ref_narrow(d_normed + n * D, d_token, D);
    }
    free(token);
    free(d_token);
    free(d_row);
    free(row);
    free(latent_token);
}
