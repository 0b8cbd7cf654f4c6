#include "infer/cache/quantize_hqq.h"

#include "base/simd.h"
#include "infer/cache/code_round.h"

#include <math.h>

// Of transformers' call: optimize = True, lp_norm = 0.7, beta = 10, iters = 20.
enum { MOST_ROUNDS = 20 };
static const float norm_power = 0.7f - 1, inverse_beta = 0.1f;

// |e| - |e|^-0.3 / 10 is not above 0 up to here (0.1^(1/1.3) = 0.17013): no power is needed for
// most errors.
static const float smallest_shrunk = 0.17f;

// The scale maps the range to 0 .. 2^bits - 1; here it multiplies values, and is stored inverted.
static void start_group(float *scale, float *zero, const float *w, int count, int bits)
{
    float low = w[0], high = w[0];
    for (int i = 1; i < count; i++) {
        low = w[i] < low ? w[i] : low;
        high = w[i] > high ? w[i] : high;
    }
    float range = high - low, most = (float)((1 << bits) - 1);
    // PyTorch divides a number by a tensor as the tensor's reciprocal times the number: a last bit
    // that decides ties of bfloat16 values.
    *scale = fabsf(range) <= 1e-4f ? 1 : 1 / range * most;
    *scale = *scale < 2e4f ? *scale : 2e4f;
    *zero = -low * *scale;
}

// The proximal operator of the norm: the part of an error that is taken for an outlier.
static float shrink(float error)
{
    float magnitude = fabsf(error);
    if (!(magnitude > smallest_shrunk))
        return 0;
    float shrunk = magnitude - inverse_beta * powf(magnitude, norm_power);
    return shrunk > 0 ? copysignf(shrunk, error) : 0;
}

HOT static void group_codes(float *restrict q, float *restrict error, const float *restrict w,
                            float scale, float zero, float most)
{
    for (int i = 0; i < QUANT_GROUP; i++) {
        float rounded = rintf(w[i] * scale + zero);
        rounded = rounded > 0 ? rounded : 0;
        q[i] = rounded < most ? rounded : most;
        error[i] = w[i] - (q[i] - zero) / scale;
    }
}

// One round of one group: a new zero. Returns the sum of absolute errors under the old one.
static double improve_zero(float *zero, const float *w, float scale, int count, int bits)
{
    float q[QUANT_GROUP], error[QUANT_GROUP], sum = 0;
    double total = 0;
    group_codes(q, error, w, scale, *zero, (float)((1 << bits) - 1));
    for (int i = 0; i < count; i++) {
        total += fabsf(error[i]);
        sum += q[i] - (w[i] - shrink(error[i])) * scale;
    }
    *zero = sum / (float)count;
    return total;
}

// All groups go on as long as the mean error of the whole tensor falls. The last round's zeros are
// kept, though they were not better.
static void optimize_zeros(float *zero, const float *scale, const float *values,
                           const QuantGroups *groups, int bits)
{
    double best = INFINITY;
    for (int round = 0; round < MOST_ROUNDS; round++) {
        double total = 0;
        for (int64_t g = 0; g < groups->count; g++) {
            float w[QUANT_GROUP] = {0};
            QuantSpan span = quant_group_span(groups, g);
            quant_group_gather(w, values, span);
            total += improve_zero(zero + g, w, scale[g], span.count, bits);
        }
        if (!(total < best))
            break;
        best = total;
    }
}

void quantize_hqq(uint8_t *restrict codes, float *restrict scale, float *restrict zero,
                  const float *restrict values, const QuantGroups *groups, int bits,
                  bool in_bfloat16)
{
    float w[QUANT_GROUP] = {0};
    for (int64_t g = 0; g < groups->count; g++) {
        QuantSpan span = quant_group_span(groups, g);
        quant_group_gather(w, values, span);
        start_group(scale + g, zero + g, w, span.count, bits);
    }
    optimize_zeros(zero, scale, values, groups, bits);
    for (int64_t g = 0; g < groups->count; g++) {
        uint8_t group[QUANT_GROUP];
        QuantSpan span = quant_group_span(groups, g);
        quant_group_gather(w, values, span);
        for (int i = 0; i < span.count; i++)
            group[i] = code_round(w[i] * scale[g] + zero[g], bits);
        quant_group_scatter(codes, group, span);
        scale[g] = bfloat16_round(1 / scale[g], in_bfloat16);
        zero[g] = bfloat16_round(zero[g], in_bfloat16);
    }
}

void dequantize_hqq(float *restrict values, const uint8_t *restrict codes,
                    const float *restrict scale, const float *restrict zero,
                    const QuantGroups *groups, int64_t first, int64_t count, bool in_bfloat16)
{
    int64_t g = quant_group_of(groups, first);
    for (int64_t i = 0; i < count; i++) {
        values[i] = bfloat16_round(
            bfloat16_round((float)codes[i] - zero[g], in_bfloat16) * scale[g], in_bfloat16);
        g = quant_group_next(groups, first + i, g);
    }
}
