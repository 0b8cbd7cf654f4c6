// Causal softmax attention with grouped heads, in tiles: no T x T matrix exists, tiles above the
// diagonal are skipped, and backward computes the probabilities again from one number per row
// (FlashAttention, Dao et al., arXiv 2205.14135).
//
//     out_h = softmax(q_h k_{h/G}^T / sqrt(E)) v_{h/G}    over the keys up to the query's position
//
// Queries, keys and values of a token lie in one row: H heads of queries, K of keys, K of values,
// each E wide. Scratch is per thread, sized by attention_scratch_floats().
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

typedef struct AttentionDims {
    int B, T, H, K, E;
} AttentionDims;

// Floats from one token's row to the next: (H + 2 K) E.
static inline int attention_row(const AttentionDims *dims)
{
    return (dims->H + 2 * dims->K) * dims->E;
}

// Scratch for n_threads, with or without backward.
int64_t attention_scratch_floats(const AttentionDims *dims, int n_threads, bool is_training);

void attention_forward(float *out,       // [N, H E]
                       float *lse,       // [N, H] saved: log of the softmax's denominator
                       const float *qkv, // [N, row]
                       float *scratch, const AttentionDims *dims);

void attention_backward(float *d_qkv,       // [N, row]
                        const float *d_out, // [N, H E]
                        const float *out,   // [N, H E] saved
                        const float *lse,   // [N, H] saved
                        const float *qkv,   // [N, row]
                        float *scratch, const AttentionDims *dims);

#endif
