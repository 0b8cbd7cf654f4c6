// optimum-quanto's quantization (0.2.7: MaxOptimizer, quantize_affine) as transformers' quantized
// cache calls it: groups of 64 between their minimum and maximum,
//
//     value = scale * code - shift,      shift = -minimum
//
// Codes, scales and shifts are those of the library.
//
//     QuantGroups groups = quanto_groups(axis, n, width);
//     quantize_quanto(codes, scale, shift, values, &groups, 4, false);
//     dequantize_quanto(values, codes, scale, shift, &groups, 0, n, false);
//
// in_bfloat16: the tensor's numbers are bfloat16's, and every operation is rounded to it.
#ifndef MHA2MLA_INFER_CACHE_QUANTIZE_QUANTO_H
#define MHA2MLA_INFER_CACHE_QUANTIZE_QUANTO_H

#include "infer/cache/quant_groups.h"

#include <stdbool.h>
#include <stdint.h>

// axis 0 (neighbours) or -1 (64 rows of a channel).
static inline QuantGroups quanto_groups(int axis, int64_t n, int width)
{
    return quant_groups(axis == 0 ? NEIGHBOURS : CHANNELS, n, width);
}

// On the calling thread. A group without spread has the codes 0, for which the library divides 0 by
// 0. Numbers that are not finite give some codes.
void quantize_quanto(uint8_t *restrict codes,      // [n]
                     float *restrict scale,        // [groups->count]
                     float *restrict shift,        // [groups->count]
                     const float *restrict values, // [n]
                     const QuantGroups *groups, int bits, bool in_bfloat16);

// Elements first .. first + count - 1 of the tensor.
void dequantize_quanto(float *restrict values,        // [count]
                       const uint8_t *restrict codes, // [count], of these elements
                       const float *restrict scale,   // [groups->count]
                       const float *restrict shift,   // [groups->count]
                       const QuantGroups *groups, int64_t first, int64_t count, bool in_bfloat16);

#endif
