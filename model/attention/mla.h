// From the normed input to queries, keys and values through the latent: multi-head latent attention
// as MHA2MLA defines it (arXiv 2502.14837, equations 8 to 10).
//
//     [q | k_r | c] = normed W^T      one product: the three weights are neighbours
//     [k_c | v]     = c W_up^T        joint: one product; split: one for each half of c
//     q_h = (RoPE(q_r,h), q_c,h)   k_j = (RoPE(k_r,j), k_c,j)   v_j
//
// (with qk_norm, each head of queries and of keys goes through its RMSNorm before the rotation)
// so that the attention proper is that of model/attention/attention.h with the same row layout as
// MHA's. Attention in the latent space (model/attention/attention_latent.h) reads the first product
// alone: mla_latent_forward(). In the shared form (model/shape.h) there is one k_r for all heads,
// the up-projections are those of query heads, and the latent may have a norm before them
// (model/attention/latent_norm.h).
#ifndef MHA2MLA_MODEL_ATTENTION_MLA_H
#define MHA2MLA_MODEL_ATTENTION_MLA_H

#include "model/attention/attention.h"
#include "model/attention/attention_context.h"
#include "model/attention/attention_latent.h"

// Attention in the latent space on B sequences of T tokens.
LatentDims mla_latent_dims(const ModelShape *shape, int B, int T);

// Attention on expanded keys and values: K heads of them, or in the shared form H.
AttentionDims mla_expanded_dims(const ModelShape *shape, int B, int T);

int mla_projected_width(const ModelShape *shape); // queries, rotated keys, latent
int mla_expanded_width(const ModelShape *shape);  // keys' other dims, values, a normed latent

void mla_forward(Rows qkv,    // [N, attention_row()]
                 Rows latent, // [N, R] saved, before its norm
                 Rows heads,  // [N, head_norm_width()] saved
                 Rows normed, // [N, D], read
                 const AttentionContext *context);

void mla_backward(Rows d_normed, // [N, D]
                  LayerParams *grads,
                  Rows d_qkv,  // [N, attention_row()]; with qk_norm used up
                  Rows latent, // [N, R] saved
                  Rows heads,  // [N, head_norm_width()] saved
                  Rows normed, // [N, D], read
                  const AttentionContext *context);

// [q_r of all heads | q_c | k_r | c], rotated: the rows of attention_latent_forward().
void mla_latent_forward(Rows rows,   // [N, mla_projected_width()]
                        Rows normed, // [N, D], read
                        const AttentionContext *context);

void mla_latent_backward(Rows d_normed, // [N, D]
                         LayerParams *grads,
                         Rows d_rows, // [N, mla_projected_width()]; rotated back in place
                         Rows normed, // [N, D], read
                         const AttentionContext *context);

#endif
