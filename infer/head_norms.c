#include "infer/head_norms.h"

#include "base/simd.h"
#include "model/head_rows.h"
#include "model/model.h"

#include <math.h>

void head_norms_place(HeadNorms *norms, Arena *arena, const ModelShape *s)
{
    const int64_t layers = s->qk_norm ? s->n_layers : 0;
    norms->shape = *s;
    norms->weights = arena_floats(arena, layers * 2 * shape_dim(s, DIM_KV));
    norms->order = arena_place(arena, shape_dim(s, DIM_HEAD_NORM), sizeof *norms->order);
}

// Queries take in the keys' weights of dims that are made of the latent.
void head_norms_set(HeadNorms *norms, const InferWeights *weights)
{
    const ModelShape *s = &norms->shape;
    const int K = s->n_kv_heads, E = s->head_dim, P = s->rope_pairs;
    for (int head = 0; s->qk_norm && head < s->n_layers * K; head++) {
        const InferLayer *layer = &weights->layers[head / K];
        float *queries = norms->weights + ((int64_t)head / K * 2 * K + head % K) * E,
              *keys = queries + (int64_t)K * E;
        head_rows_order(norms->order, weights->rope_pairs + (int64_t)head * P, P, E);
        for (int e = 0; e < E; e++) {
            keys[e] = layer->k_norm[norms->order[e]];
            queries[e] = layer->q_norm[norms->order[e]] * (e < 2 * P ? 1.0f : keys[e]);
        }
    }
}

HOT static float sum_squares(const float *restrict x, int count)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; i++)
        sum += x[i] * x[i];
    return sum;
}

// x = w (x inv_rms)
HOT static void scale(float *restrict x, const float *restrict w, float inv_rms, int count)
{
    for (int i = 0; i < count; i++)
        x[i] = w[i] * (x[i] * inv_rms);
}

// Of a head in two parts. An infinite sum would make a row of zeros, and hide what went wrong.
static float inverse_rms(const float *rotated, int n_rotated, const float *others, int n_others,
                         float eps)
{
    const float sum = sum_squares(rotated, n_rotated) + sum_squares(others, n_others);
    return sum < INFINITY ? 1.0f / sqrtf(sum / (float)(n_rotated + n_others) + eps) : NAN;
}

void head_norms_apply(const HeadNorms *norms, int layer, float *queries, float *keys,
                      float *factors, const float *key_nope)
{
    const ModelShape *s = &norms->shape;
    const int H = s->n_heads, K = s->n_kv_heads, E = s->head_dim, n_rotated = 2 * s->rope_pairs,
              n_nope = E - n_rotated;
    const float *w_q = norms->weights + (int64_t)layer * 2 * K * E, *w_k = w_q + (int64_t)K * E;
    const float eps = (float)s->rms_eps;
    for (int h = 0; h < H; h++) {
        const float *w = w_q + (int64_t)(h / (H / K)) * E;
        float *rotated = queries + (int64_t)h * n_rotated,
              *others = queries + (int64_t)H * n_rotated + (int64_t)h * n_nope;
        const float inv_rms = inverse_rms(rotated, n_rotated, others, n_nope, eps);
        scale(rotated, w, inv_rms, n_rotated);
        scale(others, w + n_rotated, inv_rms, n_nope);
    }
    for (int j = 0; j < K; j++) {
        float *rotated = keys + (int64_t)j * n_rotated;
        const float inv_rms =
            inverse_rms(rotated, n_rotated, key_nope + (int64_t)j * n_nope, n_nope, eps);
        const bool is_cached_apart = shape_is_mla(s);
        scale(rotated, w_k + (int64_t)j * E, is_cached_apart ? 1.0f : inv_rms, n_rotated);
        if (is_cached_apart)
            factors[j] = inv_rms;
    }
}
