// What a KV cache must hold, from plain lists of tokens. See testing_kv.h.
#include "tests/support/testing.h"

#include "tests/support/testing_kv.h"

#include "base/random.h"
#include "infer/cache/quantize_channel.h"
#include "infer/cache/quantize_hqq.h"
#include "infer/cache/quantize_quanto.h"
#include "model/kernels/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { T = KV_BLOCK_TOKENS, L = TEST_KV_LAYERS, MAX_CHANNELS = 3 * 16 };

#define SHAPE(pairs, latent, kind)                                                                 \
    {                                                                                              \
        .n_layers = L, .d_model = 96, .n_heads = 6, .n_kv_heads = 3, .head_dim = 16, .d_ffn = 64,  \
        .vocab_size = 100, .max_positions = 512, .rope_pairs = (pairs), .d_kv = (latent),          \
        .svd = (kind), .rope_theta = 1e4, .rms_eps = 1e-5                                          \
    }
const ModelShape testing_kv_shapes[TEST_KV_SHAPES] = {
    SHAPE(8, 0, SVD_JOINT), SHAPE(2, 5, SVD_JOINT), SHAPE(4, 4, SVD_SPLIT)};

uint64_t draw_bits(Draw *draw)
{
    return random_bits(draw->key, draw->n_drawn++);
}

int draw_below(Draw *draw, int bound)
{
    return (int)(draw_bits(draw) % (uint64_t)bound);
}

// Channel c of a part (0: key, 1: value) of a token in a layer, -1 to 1.
static float number_of(uint64_t token, int layer, int part, int c)
{
    uint64_t bits = random_bits(token, (uint64_t)(layer * 2 + part) * 4096 + (uint64_t)c);
    return (float)((double)(bits >> 40) / (1 << 23) - 1);
}

void testing_kv_write(TestSequence *s, Draw *draw, int n)
{
    assert_true(s->length + n <= TEST_KV_TOKENS);
    const int n_key = kv_part_channels(kv_key_part(s->shape));
    const int n_value = kv_part_channels(kv_value_part(s->shape));
    const int ld_key = n_key + 3, ld_value = n_value + 5;
    float *key = malloc((size_t)(n + 1) * ld_key * sizeof *key);
    float *value = malloc((size_t)(n + 1) * ld_value * sizeof *value);
    assert_true(key != NULL && value != NULL);
    uint64_t *tokens = s->tokens + s->length;
    for (int t = 0; t < n; t++)
        tokens[t] = draw_bits(draw);
    for (int layer = 0; layer < L; layer++) {
        for (int t = 0; t < n; t++) {
            for (int c = 0; c < n_key; c++)
                key[t * ld_key + c] = number_of(tokens[t], layer, 0, c);
            for (int c = 0; c < n_value; c++)
                value[t * ld_value + c] = number_of(tokens[t], layer, 1, c);
        }
        kv_write(s->sequence, layer, key, ld_key, value, ld_value, n);
    }
    free(key);
    free(value);
}

void testing_kv_append(TestSequence *s, Draw *draw, int n)
{
    assert_ok(kv_sequence_reserve(s->sequence, n));
    testing_kv_write(s, draw, n);
    assert_ok(kv_sequence_commit(s->sequence, n));
    s->length += n;
}

void testing_kv_fork(TestSequence *to, const TestSequence *from)
{
    *to = *from;
    assert_ok(kv_sequence_fork(&to->sequence, from->sequence));
}

// rows [heads][64][width] = what rows of the format's type hold of tokens [count], 0 behind them.
static void expect_rows(float *rows, KvPart part, const uint64_t *tokens, int count, int layer,
                        int which, KvType type)
{
    memset(rows, 0, (size_t)kv_part_channels(part) * T * sizeof *rows);
    for (int t = 0; t < count; t++)
        for (int c = 0; c < kv_part_channels(part); c++) {
            float number = number_of(tokens[t], layer, which, c);
            if (type == KV_BFLOAT16)
                number = half_bf16_to_f32(half_f32_to_bf16(number));
            rows[(c / part.width * T + t) * part.width + c % part.width] = number;
        }
}

// Each channel by itself, with the scale and zero that the cache stores.
static void quantize_by_channel(float *rows, KvPart part, int bits)
{
    for (int c = 0; c < kv_part_channels(part); c++) {
        float *channel = rows + c / part.width * T * part.width + c % part.width, values[T];
        for (int t = 0; t < T; t++)
            values[t] = channel[t * part.width];
        uint8_t codes[T];
        uint16_t scale, zero;
        quantize_channel(codes, &scale, &zero, values, 1, T, bits);
        for (int t = 0; t < T; t++)
            channel[t * part.width] =
                half_bf16_to_f32(scale) * (float)codes[t] + half_bf16_to_f32(zero);
    }
}

// The part as one tensor, through the library's quantizer and back.
static void quantize_by_library(float *rows, KvPart part, const KvFormat *format, int bits)
{
    const int64_t n = kv_part_channels(part) * T;
    uint8_t codes[MAX_CHANNELS * T];
    float scale[MAX_CHANNELS], zero[MAX_CHANNELS];
    if (format->scheme == KV_HQQ) {
        QuantGroups groups = hqq_groups(format->axis, n, part.width);
        quantize_hqq(codes, scale, zero, rows, &groups, bits, false);
        dequantize_hqq(rows, codes, scale, zero, &groups, 0, n, false);
    } else {
        QuantGroups groups = quanto_groups(format->axis, n, part.width);
        quantize_quanto(codes, scale, zero, rows, &groups, bits, false);
        dequantize_quanto(rows, codes, scale, zero, &groups, 0, n, false);
    }
}

static float quantize_part(float *rows, KvPart part, const KvFormat *format, int bits)
{
    if (format->scheme == KV_CHANNEL) {
        quantize_by_channel(rows, part, bits);
        return 0;
    }
    quantize_by_library(rows, part, format, bits);
    // scale and zero rounded to bfloat16 move a number of at most 1, from a zero of at least -1, by
    // up to (2 + 1) / 256.
    return 3.0f / 256;
}

static void check_part(const float *got, const float *rows, KvPart part, bool is_key,
                       float tolerance)
{
    for (int c = 0; c < kv_part_channels(part); c++)
        for (int t = 0; t < T; t++) {
            int at = (c / part.width * T + t) * part.width + c % part.width;
            float value = got[is_key ? c * T + t : at];
            if (!(fabsf(value - rows[at]) <= tolerance))
                fail_msg("%s, channel %d of token %d: %.9g, expected %.9g",
                         is_key ? "key" : "value", c, t, (double)value, (double)rows[at]);
        }
}

static void check_block(const KvBlock *b, const TestSequence *s, int layer, bool is_coded)
{
    const KvFormat *format = s->format;
    float key[MAX_CHANNELS * T], value[MAX_CHANNELS * T], rows[MAX_CHANNELS * T];
    float key_tolerance = 0, value_tolerance = 0;
    kv_block_widen(b, key, value);
    expect_rows(rows, b->key_part, s->tokens + b->first, b->count, layer, 0, format->type);
    if (is_coded)
        key_tolerance = quantize_part(rows, b->key_part, format, format->key_bits);
    check_part(key, rows, b->key_part, true, key_tolerance);
    expect_rows(rows, b->value_part, s->tokens + b->first, b->count, layer, 1, format->type);
    if (is_coded)
        value_tolerance = quantize_part(rows, b->value_part, format, format->value_bits);
    check_part(value, rows, b->value_part, false, value_tolerance);
}

void testing_kv_check(const TestSequence *s, int n_tokens)
{
    assert_int_equal(kv_sequence_length(s->sequence), s->length);
    int n_coded = s->format->scheme == KV_PLAIN ? 0 : s->length / T - 1;
    for (int layer = 0; layer < L; layer++) {
        int first = 0;
        for (int i = 0; i < kv_n_blocks(s->sequence, n_tokens); i++) {
            KvBlock b = kv_block(s->sequence, layer, i);
            assert_int_equal(b.first, first);
            assert_int_equal(b.count, n_tokens - first < T ? n_tokens - first : T);
            assert_int_equal(b.kind == KV_ROWS, i >= n_coded);
            check_block(&b, s, layer, i < n_coded);
            first += b.count;
        }
        assert_int_equal(first, n_tokens);
    }
}
