// Causal softmax attention with grouped heads, in tiles: no T x T matrix exists, tiles above the
// diagonal are skipped, and backward computes the probabilities again from one number per row
// (FlashAttention, Dao et al., arXiv 2205.14135).
//
//     out_h = softmax(q_h k_{h/G}^T / sqrt(E)) v_{h/G}    over the keys up to the query's position
//
// Queries, keys and values of a token lie in one row: H heads of queries, K of keys, each E + rope
// wide, and K of values, each E wide; rope is 0 but in the shared form of MLA. Scratch is per
// thread, sized by attention_scratch_bytes() for the type that products compute in. In float32 all
// rows are float32; in bfloat16 each may be either.
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_H

#include "model/kernels/compute.h"
#include "model/kernels/rows.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct AttentionDims {
    int B, T, H, K, E;
    int rope; // dims of queries and keys that values do not have
} AttentionDims;

// Of a head of queries or keys.
static inline int attention_key_width(const AttentionDims *dims)
{
    return dims->E + dims->rope;
}

// Where a KV head's keys and values begin in a token's row.
static inline int attention_key_column(const AttentionDims *dims, int kv_head)
{
    return (dims->H + kv_head) * attention_key_width(dims);
}

static inline int attention_value_column(const AttentionDims *dims, int kv_head)
{
    return (dims->H + dims->K) * attention_key_width(dims) + kv_head * dims->E;
}

// Numbers from one token's row to the next.
static inline int attention_row(const AttentionDims *dims)
{
    return attention_value_column(dims, dims->K);
}

// Scratch for n_threads, with or without backward. It starts at a multiple of 64 bytes.
int64_t attention_scratch_bytes(const AttentionDims *dims, ComputeType compute, int n_threads,
                                bool is_training);

void attention_forward(ComputeType compute,
                       Rows out,   // [N, H E]
                       float *lse, // [N, H] saved: log of the softmax's denominator
                       Rows qkv,   // [N, row], read
                       void *scratch, const AttentionDims *dims);

void attention_backward(ComputeType compute,
                        Rows d_qkv,       // [N, row]
                        Rows d_out,       // [N, H E], read
                        Rows out,         // [N, H E] saved
                        const float *lse, // [N, H] saved
                        Rows qkv,         // [N, row], read
                        void *scratch, const AttentionDims *dims);

#endif
