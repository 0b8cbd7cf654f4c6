// RMSNorm of every head of queries and of keys at inference, in the rows of infer/infer.c: for
// shapes with qk_norm, else nothing.
//
// Keys of the original attention are normed before they are cached. Of MLA's, which are in part
// made of the latent, only the weight can be applied where they are cached: to the rotated dims,
// and to the other dims through the queries that they meet. What is left of the norm is one factor
// a head,
//
//     q k / rms(k) = factor (q w_k) k        factor = 1 / sqrt((|k_r|^2 + |U_k c|^2) / E + eps)
//
//     head_norms_place(&norms, &arena, &shape);
//     head_norms_set(&norms, weights->layers);
//     head_norms_apply(&norms, layer, queries, keys, factors, key_nope);
#ifndef MHA2MLA_INFER_HEAD_NORMS_H
#define MHA2MLA_INFER_HEAD_NORMS_H

#include "infer/weights.h"

typedef struct HeadNorms {
    ModelShape shape;
    float *weights; // [L, 2, K, E] of queries and of keys, in the order of a head's dims
    int *order;     // [E] scratch
} HeadNorms;

// Takes no memory without qk_norm.
void head_norms_place(HeadNorms *norms, Arena *arena, const ModelShape *shape);

void head_norms_set(HeadNorms *norms, const InferWeights *weights);

// A token's queries and keys before RoPE, in place, and the keys' factors.
void head_norms_apply(const HeadNorms *norms, int layer,
                      float *queries,         // [H 2P], then [H (E - 2P)]
                      float *keys,            // [K 2P]
                      float *factors,         // [K], written for MLA
                      const float *key_nope); // [K (E - 2P)] U_k c, read if there are such dims

#endif
