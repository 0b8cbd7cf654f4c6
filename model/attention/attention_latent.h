// Causal softmax attention in the latent space: the up-projections move to the queries and to the
// output, and every head attends to the latent itself.
//
//     q_h . k_j  =  RoPE(q_r,h) . RoPE(k_r,j) + (q_c,h U_k) . c_k        instead of k_c = U_k c_k
//     out_h      =  U_v (p_h c_v)                                        instead of v   = U_v c_v
//
// The same function of the same parameters as model/attention/attention.h on expanded keys and
// values, but the cost per query and key grows with the latent's width instead of the head's. So it
// is faster for narrow latents and long sequences: latent_attention_pays(). It also saves less for
// backward.
//
//     LatentArrays a = {.qkv = rows, .up_k = w->up_k, .up_v = w->up_v, ...};
//     attention_latent_forward(compute, &a, scratch, &dims);
//     attention_latent_backward(compute, &a, scratch, &dims);
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_LATENT_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_LATENT_H

#include "model/kernels/compute.h"
#include "model/kernels/rows.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct LatentDims {
    int B, T, H, K, E; // K: heads of rotated keys
    int rope;          // 2P: dims of a head that carry a position
    int key_latent;    // columns of the latent that keys' other dims are made of; 0: no such dims
    int value_latent;  // columns that values are made of
    int value_column;  // where those begin: 0 or more
    bool is_shared;    // the shared form (model/shape.h); K is 1
} LatentDims;

// Dims of a head that carry no position.
static inline int latent_nope(const LatentDims *dims)
{
    return dims->is_shared ? dims->E : dims->E - dims->rope;
}

// Heads of U_k and U_v.
static inline int latent_up_heads(const LatentDims *dims)
{
    return dims->is_shared ? dims->H : dims->K;
}

// Groups of query heads that are computed together: those of a KV head. In the shared form, where
// any would do, as many heads as fill a tile.
int latent_groups(const LatentDims *dims);

// A token's row: queries' rotated dims of all heads, their other dims, keys' rotated dims, latent.
typedef struct LatentColumns {
    int q_rope, q_nope, k_rope, latent;
    int row; // numbers from one token to the next, the end of the latent
} LatentColumns;

LatentColumns latent_columns(const LatentDims *dims);

// Whether it needs fewer multiplications than attention on expanded keys and values.
bool latent_attention_pays(const LatentDims *dims, ComputeType compute);

// In float32 all rows are float32; in bfloat16 each may be either.
typedef struct LatentArrays {
    Rows qkv;               // [B T, row] after RoPE
    const float *up_k;      // [up_heads nope, key_latent]
    const float *up_v;      // [up_heads E, value_latent]
    Rows out;               // [B T, H E] written by forward, and again by backward
    Rows values;            // [B T, H value_latent] p c_v, saved
    float *lse;             // [B T, H] log of the softmax's denominator, saved
    Rows d_out;             // [B T, H E], backward
    Rows d_qkv;             // [B T, row], backward
    float *d_up_k, *d_up_v; // backward: += if add_gradients, else =; NULL: frozen
    bool add_gradients;
} LatentArrays;

// Scratch for n_threads, with or without backward. It starts at a multiple of 64 bytes.
int64_t attention_latent_scratch_bytes(const LatentDims *dims, ComputeType compute, int n_threads,
                                       bool is_training);

void attention_latent_forward(ComputeType compute, const LatentArrays *arrays, void *scratch,
                              const LatentDims *dims);
void attention_latent_backward(ComputeType compute, const LatentArrays *arrays, void *scratch,
                               const LatentDims *dims);

#endif
