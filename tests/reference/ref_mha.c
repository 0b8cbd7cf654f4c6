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

void exact_mha_project(double *qkv, const float *normed, const LayerParams *weights,
                       const ModelShape *s, int N)
{
    Projection parts[3];
    list_projections(parts, weights, s);
    int D = s->d_model, width = row_width(s);
    for (int64_t n = 0; n < N; n++)
        for (int p = 0; p < 3; p++)
            for (int row = 0; row < parts[p].rows; row++) {
                double sum = 0;
                for (int d = 0; d < D; d++)
                    sum +=
                        (double)parts[p].weight[(int64_t)row * D + d] * (double)normed[n * D + d];
                qkv[n * width + parts[p].first + row] = sum;
            }
}

void ref_mha_project(float *qkv, const float *normed, const LayerParams *weights,
                     const ModelShape *s, int N)
{
    int64_t count = (int64_t)N * row_width(s);
    double *exact = ref_doubles(count);
    exact_mha_project(exact, normed, weights, s, N);
    ref_narrow(qkv, exact, count);
    free(exact);
}

void ref_mha_project_backward(float *d_normed, LayerParams *grads, const float *d_qkv,
                              const float *normed, const LayerParams *weights, const ModelShape *s,
                              int N)
{
    Projection parts[3], d_parts[3];
    list_projections(parts, weights, s);
    list_projections(d_parts, grads, s);
    int D = s->d_model, width = row_width(s);
    double *dx = ref_doubles((int64_t)N * D);
    for (int p = 0; p < 3; p++)
        for (int row = 0; row < parts[p].rows; row++)
            for (int d = 0; d < D; d++) {
                double dw = 0;
                for (int64_t n = 0; n < N; n++) {
                    double dy = (double)d_qkv[n * width + parts[p].first + row];
                    dw += dy * (double)normed[n * D + d];
                    dx[n * D + d] += dy * (double)parts[p].weight[(int64_t)row * D + d];
                }
                float *to = &d_parts[p].weight[(int64_t)row * D + d];
                *to = (float)((double)*to + dw);
            }
    ref_narrow(d_normed, dx, (int64_t)N * D);
    free(dx);
}

// x cos + rotate_half(x) sin with rotate_half(x) = (-second half, first half). `pairs` must be
// 0 .. E/2 - 1: the original attention keeps them all.
void ref_mha_rotate(float *qkv, const float *cos_table, const float *sin_table,
                    const int32_t *pairs, const ModelShape *s, int B, int T, float direction)
{
    int E = s->head_dim, half = E / 2, n_heads = s->n_heads + s->n_kv_heads;
    (void)pairs;
    double *x = ref_doubles(E);
    for (int b = 0; b < B; b++)
        for (int t = 0; t < T; t++)
            for (int head = 0; head < n_heads; head++) {
                float *to = qkv + ((int64_t)b * T + t) * row_width(s) + (int64_t)head * E;
                for (int e = 0; e < E; e++)
                    x[e] = (double)to[e];
                for (int e = 0; e < E; e++) {
                    int64_t angle = (int64_t)t * half + e % half;
                    double turned = e < half ? -x[e + half] : x[e - half];
                    to[e] = (float)(x[e] * (double)cos_table[angle] +
                                    turned * (double)direction * (double)sin_table[angle]);
                }
            }
    free(x);
}
