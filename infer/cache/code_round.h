// Rounding to a code, as the quantizers share it.
#ifndef MHA2MLA_INFER_CACHE_CODE_ROUND_H
#define MHA2MLA_INFER_CACHE_CODE_ROUND_H

#include <math.h>
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

#endif
