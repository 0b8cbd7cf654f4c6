// Half-Quadratic Quantization (Badri and Shaji 2023, hqq 0.2.8) as transformers' quantized cache
// calls it: groups of 64, the zero optimized for an error norm p = 0.7 in at most 20 rounds,
//
//     value = (code - zero) * scale
//
// Codes, scales and zeros are those of the library (Quantizer.quantize on a CPU).
//
//     QuantGroups groups = hqq_groups(axis, n, width);
//     quantize_hqq(codes, scale, zero, values, &groups, 4, false);
//     dequantize_hqq(values, codes, scale, zero, &groups, 0, n, false);
//
// in_bfloat16: the tensor's numbers are bfloat16's. They are quantized in float32, scale and zero
// are rounded to bfloat16, and reading rounds every operation.
#ifndef MHA2MLA_INFER_CACHE_QUANTIZE_HQQ_H
#define MHA2MLA_INFER_CACHE_QUANTIZE_HQQ_H

#include "infer/cache/quant_groups.h"

#include <stdbool.h>
#include <stdint.h>

// axis 0 (elements n / 64 apart) or 1 (neighbours).
static inline QuantGroups hqq_groups(int axis, int64_t n, int width)
{
    return quant_groups(axis == 0 ? SPREAD : NEIGHBOURS, n, width);
}

// On the calling thread. Numbers that are not finite give some codes.
void quantize_hqq(uint8_t *restrict codes,      // [n]
                  float *restrict scale,        // [groups->count]
                  float *restrict zero,         // [groups->count]
                  const float *restrict values, // [n]
                  const QuantGroups *groups, int bits, bool in_bfloat16);

// Elements first .. first + count - 1 of the tensor.
void dequantize_hqq(float *restrict values,        // [count]
                    const uint8_t *restrict codes, // [count], of these elements
                    const float *restrict scale,   // [groups->count]
                    const float *restrict zero,    // [groups->count]
                    const QuantGroups *groups, int64_t first, int64_t count, bool in_bfloat16);

#endif
