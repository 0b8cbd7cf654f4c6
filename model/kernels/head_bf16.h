// The head's loss with products in bfloat16. Private to model/kernels: model/kernels/head.h is the
// interface.
#ifndef MHA2MLA_MODEL_KERNELS_HEAD_BF16_H
#define MHA2MLA_MODEL_KERNELS_HEAD_BF16_H

#include "model/kernels/rows.h"

#include <stdbool.h>

// As head_loss(); scratch of head_bf16_scratch_bytes().
double head_bf16_loss(float *d_normed, float *d_head, void *scratch, Rows normed, const float *head,
                      const int32_t *targets, int N, int D, int V, float scale, bool add);

int64_t head_bf16_scratch_bytes(int N, int V, bool wants_gradient);

#endif
