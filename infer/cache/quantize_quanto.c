#include "infer/cache/quantize_quanto.h"

#include "infer/cache/code_round.h"

static void group_scale(float *scale, float *shift, const float *w, int count, int bits,
                        bool in_bfloat16)
{
    float low = w[0], high = w[0], most = (float)((1 << bits) - 1);
    for (int i = 1; i < count; i++) {
        low = w[i] < low ? w[i] : low;
        high = w[i] > high ? w[i] : high;
    }
    *scale = bfloat16_round(bfloat16_round(high - low, in_bfloat16) / most, in_bfloat16);
    *shift = -low;
}

void quantize_quanto(uint8_t *restrict codes, float *restrict scale, float *restrict shift,
                     const float *restrict values, const QuantGroups *groups, int bits,
                     bool in_bfloat16)
{
    for (int64_t g = 0; g < groups->count; g++) {
        float w[QUANT_GROUP] = {0};
        uint8_t group[QUANT_GROUP];
        QuantSpan span = quant_group_span(groups, g);
        quant_group_gather(w, values, span);
        group_scale(scale + g, shift + g, w, span.count, bits, in_bfloat16);
        for (int i = 0; i < span.count; i++)
            group[i] =
                code_round(bfloat16_round(bfloat16_round(w[i] + shift[g], in_bfloat16) / scale[g],
                                          in_bfloat16),
                           bits);
        quant_group_scatter(codes, group, span);
    }
}

void dequantize_quanto(float *restrict values, const uint8_t *restrict codes,
                       const float *restrict scale, const float *restrict shift,
                       const QuantGroups *groups, int64_t first, int64_t count, bool in_bfloat16)
{
    int64_t g = quant_group_of(groups, first);
    for (int64_t i = 0; i < count; i++) {
        values[i] = bfloat16_round(
            bfloat16_round(scale[g] * (float)codes[i], in_bfloat16) - shift[g], in_bfloat16);
        g = quant_group_next(groups, first + i, g);
    }
}
