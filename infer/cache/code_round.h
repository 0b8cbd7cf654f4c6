// Rounding as the quantizers share it: to codes, and to the numbers of the tensor's type.
#ifndef MHA2MLA_INFER_CACHE_CODE_ROUND_H
#define MHA2MLA_INFER_CACHE_CODE_ROUND_H

#include "model/kernels/half.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

// The nearest code, half to even, clamped to 0 .. 2^bits - 1. NaN becomes 0: converting it to an
// integer would be undefined.
static inline uint8_t code_round(float value, int bits)
{
    float most = (float)((1 << bits) - 1);
    float rounded = rintf(value);
    rounded = rounded > 0 ? rounded : 0;
    return (uint8_t)(rounded < most ? rounded : most);
}

// An operation's result in a bfloat16 tensor, whose operations PyTorch computes in float32.
static inline float bfloat16_round(float value, bool in_bfloat16)
{
    return in_bfloat16 ? half_bf16_to_f32(half_f32_to_bf16(value)) : value;
}

#endif
