// RoPE and copies between rows of activations that may be float32 or bfloat16: model/kernels/rope.h
// computes in float32, bfloat16 is rounded once on the way out. Private to model/attention.
#ifndef MHA2MLA_MODEL_ATTENTION_ROTATE_H
#define MHA2MLA_MODEL_ATTENTION_ROTATE_H

#include "model/kernels/rows.h"

// One token's part of a row, `count` numbers.
void rotate_copy(Rows to, Rows from, int count);

// The sum of n parts of a row that lie `step` numbers apart, added in their order as floats.
void rotate_sum(Rows to, Rows from, int step, int n, int count);

// The 2P rotated dims of one head of one token, in place or not. Arguments as rope_rotate()'s.
void rotate_head(Rows out, Rows in, const float *cos_row, const float *sin_row,
                 const int32_t *pairs, int P, float direction);

#endif
