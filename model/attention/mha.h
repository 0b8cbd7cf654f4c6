// From the normed input to rotated queries, keys and values: the original attention (MHA, GQA,
// MQA). model/attention/mla.h is its counterpart; both fill the rows that
// model/attention/attention.h reads.
#ifndef MHA2MLA_MODEL_ATTENTION_MHA_H
#define MHA2MLA_MODEL_ATTENTION_MHA_H

#include "model/attention/attention_context.h"

// q | k | v in one product; queries and keys are normed if the shape says so, shown to the observer
// and rotated.
void mha_forward(Rows qkv,    // [N, Q + 2 KV]
                 Rows heads,  // [N, head_norm_width()] saved
                 Rows normed, // [N, D], read
                 const AttentionContext *context);

// d_normed =, weight gradients += or = (see context).
void mha_backward(Rows d_normed, // [N, D]
                  LayerParams *grads,
                  Rows d_qkv,  // [N, Q + 2 KV]; rotated back in place
                  Rows heads,  // [N, head_norm_width()] saved
                  Rows normed, // [N, D], read
                  const AttentionContext *context);

#endif
