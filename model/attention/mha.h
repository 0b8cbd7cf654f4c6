// From the normed input to rotated queries, keys and values: the original attention (MHA, GQA,
// MQA). model/attention/mla.h is its counterpart; both fill the rows that
// model/attention/attention.h reads.
#ifndef MHA2MLA_MODEL_ATTENTION_MHA_H
#define MHA2MLA_MODEL_ATTENTION_MHA_H

#include "model/params.h"

// q | k | v before RoPE, in one product.
void mha_project(float *qkv,          // [N, Q + 2 KV]
                 const float *normed, // [N, D]
                 const LayerParams *weights, const ModelShape *shape, int N);

// RoPE in place on queries and keys: direction +1 forward, -1 backward.
void mha_rotate(float *qkv,             // [B T, Q + 2 KV]
                const float *cos_table, // [T, E/2]
                const float *sin_table, // [T, E/2]
                const int32_t *pairs,   // [K, E/2]
                const ModelShape *shape, int B, int T, float direction);

// d_normed =, weight gradients += if `add`, else =. d_qkv is that of mha_project's output (after
// mha_rotate back).
void mha_project_backward(float *d_normed, // [N, D]
                          LayerParams *grads,
                          const float *d_qkv,  // [N, Q + 2 KV]
                          const float *normed, // [N, D]
                          const LayerParams *weights, const ModelShape *shape, int N, bool add);

#endif
