#include "infer/cache/quantize_channel.h"

#include "base/simd.h"
#include "infer/cache/code_round.h"
#include "model/kernels/half.h"

#include <string.h>

// Of a fit. More lower the squares, but no longer the loss of converted models, and raise that of
// original ones again (demo, 2 bits: 0.644, after 1, 2, 4 rounds 0.635, 0.639, 0.647).
enum { MOST_ROUNDS = 2 };

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

// A channel's codes with their scale and zero, and what they lose.
typedef struct ChannelFit {
    uint8_t codes[CODE_RUN];
    uint16_t scale, zero;
    double error; // sum of squares
} ChannelFit;

HOT static void choose_codes(uint8_t *restrict codes, const float *restrict values, float scale,
                             float zero, int count, int bits)
{
    // A channel without spread has scale 0: all codes are 0.
    float inverse = scale > 0 ? 1 / scale : 0;
    for (int t = 0; t < count; t++)
        codes[t] = code_round((values[t] - zero) * inverse, bits);
}

static void fit_codes(ChannelFit *fit, const float *values, int count, int bits)
{
    const float scale = half_bf16_to_f32(fit->scale), zero = half_bf16_to_f32(fit->zero);
    choose_codes(fit->codes, values, scale, zero, count, bits);
    fit->error = 0;
    for (int t = 0; t < count; t++) {
        double error = values[t] - (scale * (float)fit->codes[t] + zero);
        fit->error += error * error;
    }
}

static ChannelFit fit_range(const float *values, int count, int bits)
{
    float low, high;
    ChannelFit fit = {0};
    channel_range(&low, &high, values, count);
    fit.zero = bf16_below(low);
    fit.scale = bf16_above((high - half_bf16_to_f32(fit.zero)) / (float)((1 << bits) - 1));
    fit_codes(&fit, values, count, bits);
    return fit;
}

// The scale and zero of least squares for the codes as they are. All codes equal: unchanged.
static void fit_scale(ChannelFit *fit, const float *values, int count)
{
    double codes = 0, squares = 0, sum = 0, products = 0;
    for (int t = 0; t < count; t++) {
        const double code = fit->codes[t];
        codes += code;
        squares += code * code;
        sum += (double)values[t];
        products += code * (double)values[t];
    }
    const double variance = squares - codes * codes / count;
    if (!(variance > 0))
        return;
    const double scale = (products - codes * sum / count) / variance;
    fit->scale = half_f32_to_bf16((float)scale);
    fit->zero = half_f32_to_bf16((float)((sum - scale * codes) / count));
}

// From the range's ends on, scale and codes by turns, as long as the error falls. With few codes
// the ends are rare values, and giving them up makes the steps of all others narrower; with 256
// there is nothing to gain.
static ChannelFit fit_channel(const float *values, int count, int bits)
{
    ChannelFit best = fit_range(values, count, bits);
    for (int round = 0; round < MOST_ROUNDS && bits <= 4; round++) {
        ChannelFit next = best;
        fit_scale(&next, values, count);
        fit_codes(&next, values, count, bits);
        if (!(next.error < best.error)) // also where it is NaN
            break;
        best = next;
    }
    return best;
}

void quantize_channel(uint8_t *restrict codes, uint16_t *restrict scale, uint16_t *restrict zero,
                      const float *restrict rows, int width, int count, int bits)
{
    for (int c = 0; c < width; c++) {
        const ChannelFit fit = fit_channel(rows + c * CODE_RUN, count, bits);
        memcpy(codes + c * CODE_RUN, fit.codes, CODE_RUN);
        scale[c] = fit.scale;
        zero[c] = fit.zero;
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
