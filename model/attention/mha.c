#include "model/attention/mha.h"

#include "model/kernels/linear.h"
#include "model/kernels/rope.h"

// q, k and v lie side by side in the flat vector (model/params.h): together one matrix.
static int projected_width(const ModelShape *shape)
{
    return shape_dim(shape, DIM_Q) + 2 * shape_dim(shape, DIM_KV);
}

void mha_project(float *qkv, const float *normed, const LayerParams *weights,
                 const ModelShape *shape, int N)
{
    int width = projected_width(shape);
    linear_forward(qkv, width, normed, shape->d_model, weights->q, N, shape->d_model, width, false);
}

void mha_project_backward(float *d_normed, LayerParams *grads, const float *d_qkv,
                          const float *normed, const LayerParams *weights, const ModelShape *shape,
                          int N, bool add)
{
    int width = projected_width(shape), D = shape->d_model;
    linear_backward_input(d_normed, D, d_qkv, width, weights->q, N, D, width, false);
    linear_backward_weight(grads->q, d_qkv, width, normed, D, N, D, width, add);
}

void mha_rotate(float *qkv, const float *cos_table, const float *sin_table, const int32_t *pairs,
                const ModelShape *shape, int B, int T, float direction)
{
    int H = shape->n_heads, K = shape->n_kv_heads, E = shape->head_dim, G = H / K;
    int width = projected_width(shape);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < B * T; n++) {
        const float *cos_row = cos_table + (int64_t)(n % T) * (E / 2);
        const float *sin_row = sin_table + (int64_t)(n % T) * (E / 2);
        for (int head = 0; head < H + K; head++) {
            int kv_head = head < H ? head / G : head - H;
            float *x = qkv + (int64_t)n * width + (int64_t)head * E;
            rope_rotate(x, x, cos_row, sin_row, pairs + (int64_t)kv_head * (E / 2), E / 2,
                        direction);
        }
    }
}
