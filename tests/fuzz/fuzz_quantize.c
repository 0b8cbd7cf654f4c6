// infer/cache: any numbers quantized, packed and read again. Four bytes of settings, then the bits
// of float32 numbers. Codes must be below 2^bits and survive packing, a part of a tensor must read
// as it does in the whole, and numbers of ordinary size must come back within half a step.
#include "tests/fuzz/fuzzing.h"

#include "infer/cache/quantize_channel.h"
#include "infer/cache/quantize_hqq.h"
#include "infer/cache/quantize_quanto.h"
#include "model/kernels/half.h"

#include <math.h>
#include <string.h>

enum { MOST_NUMBERS = 8 * CODE_RUN };

static const int all_bits[] = {8, 4, 3, 2};

typedef struct Tensor {
    float values[MOST_NUMBERS], back[MOST_NUMBERS], part[MOST_NUMBERS];
    float scale[MOST_NUMBERS], zero[MOST_NUMBERS];
    uint8_t codes[MOST_NUMBERS];
    int n, width, bits;
    bool in_bfloat16;
} Tensor;

static bool all_ordinary(const float *values, int n)
{
    bool ordinary = true;
    for (int i = 0; i < n; i++)
        ordinary = ordinary && fabsf(values[i]) < 1e30f; // false for NaN
    return ordinary;
}

static void check_packing(const uint8_t *codes, int n, int bits)
{
    uint8_t padded[MOST_NUMBERS] = {0}, packed[MOST_NUMBERS], back[MOST_NUMBERS];
    memcpy(padded, codes, (size_t)n);
    for (int i = 0; i < n; i++)
        CHECK(codes[i] < 1 << bits, "code %d with %d bits", codes[i], bits);
    n = (n + 7) / 8 * 8;
    code_pack(packed, padded, n, bits);
    code_unpack(back, packed, n, bits);
    CHECK(memcmp(padded, back, (size_t)n) == 0, "%d codes of %d bits changed", n, bits);
}

static void check_parts_equal(const Tensor *tensor)
{
    CHECK(memcmp(tensor->part, tensor->back, (size_t)tensor->n * sizeof(float)) == 0,
          "a part of %d x %d numbers reads otherwise", tensor->n / tensor->width, tensor->width);
}

static void check_hqq(Tensor *t, int axis)
{
    QuantGroups groups = hqq_groups(axis, t->n, t->width);
    quantize_hqq(t->codes, t->scale, t->zero, t->values, &groups, t->bits, t->in_bfloat16);
    check_packing(t->codes, t->n, t->bits);
    dequantize_hqq(t->back, t->codes, t->scale, t->zero, &groups, 0, t->n, t->in_bfloat16);
    int half = t->n / 2;
    dequantize_hqq(t->part, t->codes, t->scale, t->zero, &groups, 0, half, t->in_bfloat16);
    dequantize_hqq(t->part + half, t->codes + half, t->scale, t->zero, &groups, half, t->n - half,
                   t->in_bfloat16);
    check_parts_equal(t);
}

static void check_quanto(Tensor *t, int axis)
{
    QuantGroups groups = quanto_groups(axis, t->n, t->width);
    quantize_quanto(t->codes, t->scale, t->zero, t->values, &groups, t->bits, t->in_bfloat16);
    check_packing(t->codes, t->n, t->bits);
    dequantize_quanto(t->back, t->codes, t->scale, t->zero, &groups, 0, t->n, t->in_bfloat16);
    int half = t->n / 2;
    dequantize_quanto(t->part, t->codes, t->scale, t->zero, &groups, 0, half, t->in_bfloat16);
    dequantize_quanto(t->part + half, t->codes + half, t->scale, t->zero, &groups, half,
                      t->n - half, t->in_bfloat16);
    check_parts_equal(t);
    if (t->in_bfloat16 || !all_ordinary(t->values, t->n))
        return;
    for (int i = 0; i < t->n; i++) {
        int64_t g = quant_group_of(&groups, i);
        float ends = fabsf(t->zero[g]) + fabsf(t->scale[g] * 255);
        CHECK(fabsf(t->back[i] - t->values[i]) <= 0.5001f * t->scale[g] + 1e-6f * ends + 1e-36f,
              "%g came back as %g, scale %g", t->values[i], t->back[i], t->scale[g]);
    }
}

// No more than half a step between minimum and maximum, for each value with 8 bits and in the mean
// of squares with fewer.
static void check_channel_error(const Tensor *t, int channel, int count)
{
    const float *values = t->values + channel * CODE_RUN, *back = t->back + channel * CODE_RUN;
    double low = values[0], high = values[0], sum = 0, most = 0;
    for (int i = 0; i < count; i++) {
        double square = pow((double)back[i] - (double)values[i], 2);
        low = fmin(low, values[i]);
        high = fmax(high, values[i]);
        sum += square;
        most = fmax(most, square);
    }
    // Rounding of scale and zero to bfloat16, and of everything to float32.
    double step = ((high - low) * (1 + 1.0 / 128) + fabs(low) / 128) / ((1 << t->bits) - 1);
    double allowed = 0.501 * step + 1e-6 * (fabs(low) + fabs(high)) + 1e-36;
    CHECK((t->bits == 8 ? most : sum / count) <= allowed * allowed,
          "%d values from %g to %g with %d bits: mean square error %g, largest %g", count, low,
          high, t->bits, sum / count, most);
}

static void check_channel(Tensor *t)
{
    uint16_t scale[MOST_NUMBERS / CODE_RUN], zero[MOST_NUMBERS / CODE_RUN];
    int width = (t->n + CODE_RUN - 1) / CODE_RUN;
    int count = 1 + t->width % CODE_RUN;
    quantize_channel(t->codes, scale, zero, t->values, width, count, t->bits);
    check_packing(t->codes, width * CODE_RUN, t->bits);
    dequantize_channel(t->back, t->codes, scale, zero, width);
    for (int c = 0; c < width; c++)
        if (all_ordinary(t->values + c * CODE_RUN, count))
            check_channel_error(t, c, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static Tensor tensor;
    FuzzInput input = {data, size};
    uint8_t scheme = fuzz_take_byte(&input);
    memset(&tensor, 0, sizeof tensor);
    tensor.bits = all_bits[fuzz_take_byte(&input) % 4];
    tensor.width = 1 + fuzz_take_byte(&input) % 70;
    tensor.in_bfloat16 = fuzz_take_byte(&input) % 2;
    size_t n = input.size / sizeof(float);
    n = n < MOST_NUMBERS ? n : MOST_NUMBERS;
    tensor.n = (int)n / tensor.width * tensor.width;
    if (tensor.n == 0)
        return 0;
    memcpy(tensor.values, input.bytes, (size_t)tensor.n * sizeof(float));
    for (int i = 0; tensor.in_bfloat16 && i < tensor.n; i++)
        tensor.values[i] = half_bf16_to_f32(half_f32_to_bf16(tensor.values[i]));
    if (scheme % 5 < 2)
        check_hqq(&tensor, scheme % 5);
    else if (scheme % 5 < 4)
        check_quanto(&tensor, 2 - scheme % 5);
    else
        check_channel(&tensor);
    return 0;
}
