// From the normed input to queries, keys and values through the latent: multi-head latent attention
// as MHA2MLA defines it (arXiv 2502.14837, equations 8 to 10).
//
//     [q | k_r | c] = normed W^T      one product: the three weights are neighbours
//     [k_c | v]     = c W_up^T        joint: one product; split: one for each half of c
//     q_h = (RoPE(q_r,h), q_c,h)   k_j = (RoPE(k_r,j), k_c,j)   v_j
//
// so that the attention proper is that of model/attention/attention.h with the same row layout as
// MHA's. For attention in the latent space (model/attention/attention_latent.h) the first product
// is all there is before it: mla_project() and its way back.
#ifndef MHA2MLA_MODEL_ATTENTION_MLA_H
#define MHA2MLA_MODEL_ATTENTION_MLA_H

#include "model/attention/attention_latent.h"
#include "model/kernels/step_times.h"
#include "model/params.h"

// What forward and backward are given besides the data.
typedef struct MlaContext {
    const LayerParams *weights;
    const ModelShape *shape;
    const int32_t *pairs;   // [K, P]
    const float *cos_table; // [T, E/2]
    const float *sin_table; // [T, E/2]
    int B, T;
    float *projected;   // scratch [N, mla_projected_width()]
    float *expanded;    // scratch [N, mla_expanded_width()]
    bool add_gradients; // of the weights: += instead of =
    StepTimes *times;   // borrowed, or NULL
} MlaContext;

// Attention in the latent space on B sequences of T tokens.
LatentDims mla_latent_dims(const ModelShape *shape, int B, int T);

int mla_projected_width(const ModelShape *shape); // Q + K 2P + R
int mla_expanded_width(const ModelShape *shape);  // K (E - 2P) + K E

void mla_forward(float *qkv,          // [N, Q + 2 KV]
                 float *latent,       // [N, R] saved
                 const float *normed, // [N, D]
                 const MlaContext *context);

void mla_backward(float *d_normed, // [N, D]
                  LayerParams *grads,
                  const float *d_qkv,  // [N, Q + 2 KV]
                  const float *latent, // [N, R] saved
                  const float *normed, // [N, D]
                  const MlaContext *context);

// [q_r of all heads | q_c | k_r | c], rotated: the rows of attention_latent_forward().
void mla_project(float *rows,         // [N, mla_projected_width()]
                 const float *normed, // [N, D]
                 const MlaContext *context);

void mla_project_backward(float *d_normed, // [N, D]
                          LayerParams *grads,
                          float *d_rows,       // [N, mla_projected_width()]; turned back in place
                          const float *normed, // [N, D]
                          const MlaContext *context);

#endif
