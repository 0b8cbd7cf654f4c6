#include "infer/cache/quantize_channel.h"

#include "base/simd.h"
#include "infer/cache/code_round.h"
#include "model/kernels/half.h"

// The largest bfloat16 not above the value, and the smallest not below it: with both ends rounded
// outward no value of the channel is clamped.
static uint16_t bf16_below(float value)
{
    uint16_t nearest = half_f32_to_bf16(value);
    if (!(half_bf16_to_f32(nearest) > value))
        return nearest;
    if ((nearest & 0x7fff) == 0)
        return 0x8001;
    return (uint16_t)(nearest & 0x8000 ? nearest + 1 : nearest - 1);
}

static uint16_t bf16_above(float value)
{
    uint16_t below = bf16_below(-value);
    return (uint16_t)(below ^ 0x8000);
}

static void channel_range(float *low, float *high, const float *values, int count)
{
    float unordered =
        0; // becomes NaN with any number that is not finite, which < and > may pass over
    *low = *high = values[0];
    for (int t = 0; t < count; t++) {
        *low = values[t] < *low ? values[t] : *low;
        *high = values[t] > *high ? values[t] : *high;
        unordered += 0 * values[t];
    }
    *low += unordered;
}

HOT static void channel_codes(uint8_t *restrict codes, const float *restrict values, float scale,
                              float zero, int count, int bits)
{
    // A channel without spread has scale 0: all codes are 0.
    float inverse = scale > 0 ? 1 / scale : 0;
    for (int t = 0; t < count; t++)
        codes[t] = code_round((values[t] - zero) * inverse, bits);
    for (int t = count; t < CODE_RUN; t++)
        codes[t] = 0;
}

void quantize_channel(uint8_t *restrict codes, uint16_t *restrict scale, uint16_t *restrict zero,
                      const float *restrict rows, int width, int count, int bits)
{
    float steps = (float)((1 << bits) - 1);
    for (int c = 0; c < width; c++) {
        float low, high;
        channel_range(&low, &high, rows + c * CODE_RUN, count);
        zero[c] = bf16_below(low);
        float base = half_bf16_to_f32(zero[c]);
        scale[c] = bf16_above((high - base) / steps);
        channel_codes(codes + c * CODE_RUN, rows + c * CODE_RUN, half_bf16_to_f32(scale[c]), base,
                      count, bits);
    }
}

HOT void dequantize_channel(float *restrict rows, const uint8_t *restrict codes,
                            const uint16_t *restrict scale, const uint16_t *restrict zero,
                            int width)
{
    for (int c = 0; c < width; c++) {
        float s = half_bf16_to_f32(scale[c]), z = half_bf16_to_f32(zero[c]);
        for (int t = 0; t < CODE_RUN; t++)
            rows[c * CODE_RUN + t] = s * (float)codes[c * CODE_RUN + t] + z;
    }
}
