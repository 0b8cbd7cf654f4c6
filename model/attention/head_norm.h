// RMSNorm of every head of queries and of keys between their projection and RoPE, as Qwen3 has it:
// all heads of queries share one weight [E], and all heads of keys another. For shapes with
// qk_norm.
//
//     head_norm_forward(qkv, heads, true, context);     heads = q | k,   q | k of qkv =
//     RoPE(normed) head_norm_backward(d_qkv, grads, heads, context);
//
// RoPE is here, since both are one pass over a head, which bfloat16 rounds once.
//
// A head's dims lie in the order of its kept pairs (model/head_rows.h), the weights in the
// original's. Statistics and sums are float32 whatever the rows are. Private to model/attention.
#ifndef MHA2MLA_MODEL_ATTENTION_HEAD_NORM_H
#define MHA2MLA_MODEL_ATTENTION_HEAD_NORM_H

#include "model/attention/attention_context.h"

// Numbers of a token that are normed and saved, H E + K E. 0: the shape has no qk_norm.
int head_norm_width(const ModelShape *shape);

// Of the scratch, context->tiles, for N tokens, with or without backward.
int64_t head_norm_scratch_bytes(const ModelShape *shape, int64_t N, bool is_training);

// Queries and keys, the first columns of qkv, in place, rotated or not; as they were -> heads.
void head_norm_forward(Rows qkv,   // [N, ...]
                       Rows heads, // [N, head_norm_width()] saved
                       bool rotates, const AttentionContext *context);

// The same columns of d_qkv in place: from the gradient of rotated heads to that of the heads.
// Gradients of both weights, unless they are NULL, += or = (see context).
void head_norm_backward(Rows d_qkv, // [N, ...]
                        LayerParams *grads,
                        Rows heads, // [N, head_norm_width()] saved
                        const AttentionContext *context);

#endif
