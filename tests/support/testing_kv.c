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

#define SHAPE(pairs, width, kind, ...)                                                             \
    {                                                                                              \
        .n_layers = L, .d_model = 96, .n_heads = 6, .n_kv_heads = 3, .head_dim = 16, .d_ffn = 64,  \
        .vocab_size = 100, .max_positions = 512, .rope_pairs = (pairs), .d_kv = (width),           \
        .svd = (kind), .rope_theta = 1e4, .rms_eps = 1e-5, __VA_ARGS__                             \
    }
const ModelShape testing_kv_shapes[TEST_KV_SHAPES] = {
    SHAPE(8, 0, SVD_JOINT), SHAPE(2, 5, SVD_JOINT), SHAPE(4, 4, SVD_SPLIT),
    SHAPE(9, 0, SVD_JOINT, .latent = 21, .latent_norm = true)};

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

// transformers' QuantizedLayer quantizes everything when the residual would hold 128.
void testing_kv_commit(TestSequence *s, int n)
{
    assert_ok(kv_sequence_commit(s->sequence, n));
    s->length += n;
    if (s->n_points > 0 && s->length - s->points[s->n_points - 1] >= 128)
        s->points[s->n_points++] = s->length;
    assert_true(s->n_points < TEST_KV_POINTS);
}

void testing_kv_end_prompt(TestSequence *s)
{
    assert_ok(kv_sequence_end_prompt(s->sequence));
    if (s->format->reference_policy && s->length > 0)
        s->points[s->n_points++] = s->length;
}

void testing_kv_append(TestSequence *s, Draw *draw, int n)
{
    assert_ok(kv_sequence_reserve(s->sequence, n));
    testing_kv_write(s, draw, n);
    testing_kv_commit(s, n);
}

void testing_kv_fork(TestSequence *to, const TestSequence *from)
{
    *to = *from;
    assert_ok(kv_sequence_fork(&to->sequence, from->sequence));
}

// What a row of the format's type holds.
static float row_number(uint64_t token, int layer, int part, int c, KvType type)
{
    float number = number_of(token, layer, part, c);
    return type == KV_FLOAT32 ? number : half_bf16_to_f32(half_f32_to_bf16(number));
}

// rows [heads][64][width] = what rows hold of tokens [count], 0 behind them.
static void expect_rows(float *rows, KvPart part, const uint64_t *tokens, int count, int layer,
                        int which, KvType type)
{
    memset(rows, 0, (size_t)kv_part_channels(part) * T * sizeof *rows);
    for (int t = 0; t < count; t++)
        for (int c = 0; c < kv_part_channels(part); c++)
            rows[(c / part.width * T + t) * part.width + c % part.width] =
                row_number(tokens[t], layer, which, c, type);
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

// rows [heads][n_tokens][width] as one tensor, through the library's quantizer and back.
static void quantize_by_library(float *rows, KvPart part, int n_tokens, const KvFormat *format,
                                int bits, bool in_bfloat16)
{
    const int64_t n = (int64_t)kv_part_channels(part) * n_tokens;
    static _Thread_local uint8_t codes[MAX_CHANNELS * TEST_KV_TOKENS];
    static _Thread_local float scale[MAX_CHANNELS * TEST_KV_TOKENS / T + MAX_CHANNELS];
    static _Thread_local float zero[MAX_CHANNELS * TEST_KV_TOKENS / T + MAX_CHANNELS];
    if (format->scheme == KV_HQQ) {
        QuantGroups groups = hqq_groups(format->axis, n, part.width);
        quantize_hqq(codes, scale, zero, rows, &groups, bits, in_bfloat16);
        dequantize_hqq(rows, codes, scale, zero, &groups, 0, n, in_bfloat16);
    } else {
        QuantGroups groups = quanto_groups(format->axis, n, part.width);
        quantize_quanto(codes, scale, zero, rows, &groups, bits, in_bfloat16);
        dequantize_quanto(rows, codes, scale, zero, &groups, 0, n, in_bfloat16);
    }
}

static float quantize_part(float *rows, KvPart part, const KvFormat *format, int bits)
{
    if (format->scheme == KV_CHANNEL) {
        quantize_by_channel(rows, part, bits);
        return 0;
    }
    quantize_by_library(rows, part, T, format, bits, false);
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

// One part of a sequence in one layer.
typedef struct Expected {
    KvPart part;
    int which, bits, layer;
    float history[MAX_CHANNELS * TEST_KV_TOKENS]; // reference policy: [heads][last point][width]
} Expected;

// The reference policy replayed: at each point the numbers read so far and the newer rows are
// quantized together.
static void replay(Expected *e, const TestSequence *s)
{
    const KvFormat *format = s->format;
    static _Thread_local float next[MAX_CHANNELS * TEST_KV_TOKENS];
    for (int i = 0; i < s->n_points; i++) {
        const int before = i == 0 ? 0 : s->points[i - 1], n = s->points[i], w = e->part.width;
        for (int c = 0; c < kv_part_channels(e->part); c++)
            for (int t = 0; t < n; t++)
                next[(c / w * n + t) * w + c % w] =
                    t < before ? e->history[(c / w * before + t) * w + c % w]
                               : row_number(s->tokens[t], e->layer, e->which, c, format->type);
        quantize_by_library(next, e->part, n, format, e->bits, format->type == KV_BFLOAT16);
        memcpy(e->history, next, (size_t)(kv_part_channels(e->part) * n) * sizeof *next);
    }
}

// rows [heads][64][width] of a block, and how far the cache's may be from them.
static float expect_block(float *rows, const Expected *e, const TestSequence *s, const KvBlock *b,
                          bool is_coded)
{
    expect_rows(rows, e->part, s->tokens + b->first, b->count, e->layer, e->which, s->format->type);
    if (is_coded && !s->format->reference_policy)
        return quantize_part(rows, e->part, s->format, e->bits);
    const int n = is_coded ? s->points[s->n_points - 1] : 0, w = e->part.width;
    for (int c = 0; c < kv_part_channels(e->part); c++)
        for (int t = 0; t < b->count && b->first + t < n; t++)
            rows[(c / w * T + t) * w + c % w] = e->history[(c / w * n + b->first + t) * w + c % w];
    return 0;
}

static void check_block(const KvBlock *b, const Expected parts[2], const TestSequence *s,
                        bool is_coded)
{
    float got[2][MAX_CHANNELS * T], rows[MAX_CHANNELS * T];
    kv_block_widen(b, got[0], got[1]);
    for (int which = 0; which < 2; which++) {
        float tolerance = expect_block(rows, &parts[which], s, b, is_coded);
        check_part(got[which], rows, parts[which].part, which == 0, tolerance);
    }
}

// Blocks that are not rows alone.
static int coded_blocks(const TestSequence *s)
{
    if (s->format->scheme == KV_PLAIN)
        return 0;
    if (s->format->reference_policy)
        return s->n_points == 0 ? 0 : (s->points[s->n_points - 1] + T - 1) / T;
    return s->length / T - 1;
}

void testing_kv_check(const TestSequence *s, int n_tokens)
{
    static _Thread_local Expected parts[2];
    assert_int_equal(kv_sequence_length(s->sequence), s->length);
    const int n_coded = coded_blocks(s);
    for (int layer = 0; layer < L; layer++) {
        for (int which = 0; which < 2; which++) {
            parts[which].part = which == 0 ? kv_key_part(s->shape) : kv_value_part(s->shape);
            parts[which].bits = which == 0 ? s->format->key_bits : s->format->value_bits;
            parts[which].which = which;
            parts[which].layer = layer;
            replay(&parts[which], s);
        }
        int first = 0;
        for (int i = 0; i < kv_n_blocks(s->sequence, n_tokens); i++) {
            KvBlock b = kv_block(s->sequence, layer, i);
            assert_int_equal(b.first, first);
            assert_int_equal(b.count, n_tokens - first < T ? n_tokens - first : T);
            assert_int_equal(b.kind == KV_ROWS, i >= n_coded);
            check_block(&b, parts, s, i < n_coded);
            first += b.count;
        }
        assert_int_equal(first, n_tokens);
    }
}
