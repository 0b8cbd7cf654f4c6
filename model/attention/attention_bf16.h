// model/attention/attention.h where products compute in bfloat16. Private to model/attention.
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_BF16_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_BF16_H

#include "model/attention/attention.h"

int64_t attention_bf16_scratch_bytes(const AttentionDims *dims, int n_threads, bool is_training);

void attention_bf16_forward(Rows out, float *lse, Rows qkv, void *scratch,
                            const AttentionDims *dims);

void attention_bf16_backward(Rows d_qkv, Rows d_out, Rows out, const float *lse, Rows qkv,
                             void *scratch, const AttentionDims *dims);

#endif
