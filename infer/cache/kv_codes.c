// One layout of codes for every scheme: groups of 64, each packed by itself, differ only in which
// elements they hold. See kv_codes.h.
#include "infer/cache/kv_codes.h"

#include "base/simd.h"
#include "infer/cache/code_pack.h"
#include "infer/cache/quant_groups.h"
#include "infer/cache/quantize_channel.h"
#include "infer/cache/quantize_hqq.h"
#include "infer/cache/quantize_quanto.h"
#include "model/kernels/half.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

enum { T = KV_BLOCK_TOKENS };
_Static_assert((int)CODE_RUN == T && (int)QUANT_GROUP == T,
               "a group is a block's tokens of a channel");

KvGrouping kv_codes_grouping(const KvFormat *f, KvPart part)
{
    if (f->scheme == KV_CHANNEL || (f->scheme == KV_QUANTO && f->axis == -1))
        return KV_PER_CHANNEL;
    if (f->scheme == KV_HQQ && f->axis == 0)
        return part.n_heads == 1 ? KV_PER_CHANNEL : KV_SPREAD;
    return KV_NEIGHBOURS;
}

KvCodes kv_codes_at(uint8_t *packed, uint16_t *scales, KvPart part, int bits, KvGrouping grouping)
{
    return (KvCodes){grouping, bits, packed, scales, scales + kv_part_channels(part)};
}

static int64_t part_elements(KvPart part)
{
    return (int64_t)kv_part_channels(part) * T;
}

static QuantSpan group_span(KvGrouping grouping, KvPart part, int group)
{
    if (grouping == KV_NEIGHBOURS)
        return (QuantSpan){.first = (int64_t)group * T, .stride = 1, .count = T};
    if (grouping == KV_SPREAD)
        return (QuantSpan){.first = group, .stride = kv_part_channels(part), .count = T};
    int head = group / part.width, channel = group % part.width;
    return (QuantSpan){
        .first = (int64_t)head * T * part.width + channel, .stride = part.width, .count = T};
}

// What a library makes of the whole part, before it is packed.
typedef struct Quantized {
    float *scale, *zero; // [groups], in the library's order of groups
    uint8_t *codes;      // [elements]
    QuantGroups groups;
} Quantized;

int64_t kv_codes_scratch_bytes(KvPart part)
{
    return part_elements(part) + kv_part_channels(part) * 2 * (int64_t)sizeof(float);
}

static Quantized quantize_tensor(void *scratch, KvPart part, const float *rows, const KvFormat *f,
                                 int bits)
{
    const int64_t n = part_elements(part);
    Quantized q = {.scale = scratch};
    q.zero = q.scale + kv_part_channels(part);
    q.codes = (uint8_t *)(q.zero + kv_part_channels(part));
    if (f->scheme == KV_HQQ) {
        q.groups = hqq_groups(f->axis, n, part.width);
        quantize_hqq(q.codes, q.scale, q.zero, rows, &q.groups, bits, false);
    } else {
        q.groups = quanto_groups(f->axis, n, part.width);
        quantize_quanto(q.codes, q.scale, q.zero, rows, &q.groups, bits, false);
    }
    return q;
}

// hqq reads (code - zero) * scale, quanto scale * code - shift.
static void store_scale(const KvCodes *codes, int group, const Quantized *q, int64_t theirs,
                        KvScheme scheme)
{
    codes->scale[group] = half_f32_to_bf16(q->scale[theirs]);
    float zero = -q->zero[theirs];
    if (scheme == KV_HQQ)
        zero *= half_bf16_to_f32(codes->scale[group]);
    codes->zero[group] = half_f32_to_bf16(zero);
}

void kv_codes_quantize(const KvCodes *codes, KvPart part, const float *rows, const KvFormat *f,
                       void *scratch)
{
    const int n_groups = kv_part_channels(part);
    Quantized q;
    if (f->scheme != KV_CHANNEL)
        q = quantize_tensor(scratch, part, rows, f, codes->bits);
    for (int g = 0; g < n_groups; g++) {
        const QuantSpan span = group_span(codes->grouping, part, g);
        uint8_t run[T];
        if (f->scheme == KV_CHANNEL) {
            float values[T];
            quant_group_gather(values, rows, span);
            quantize_channel(run, codes->scale + g, codes->zero + g, values, 1, T, codes->bits);
        } else {
            for (int i = 0; i < T; i++)
                run[i] = q.codes[span.first + i * span.stride];
            store_scale(codes, g, &q, quant_group_of(&q.groups, span.first), f->scheme);
        }
        code_pack(codes->codes + g * code_bytes(T, codes->bits), run, T, codes->bits);
    }
}

// Groups [n][64], in the packing of infer/cache/code_pack.h, unpacked and scaled in one pass: 3 to
// 6 ns for a group, 12 with 3 bits, where code_unpack() alone takes 28. Codes of one part of a run
// are neighbours, and so are the bytes that they come from: every inner loop is a vector's.
typedef struct Groups {
    const uint8_t *packed;
    const uint16_t *scale, *zero;
} Groups;

HOT static void read_8_bits(float *restrict out, const Groups *in, int n)
{
    for (int g = 0; g < n; g++, out += T) {
        float scale = half_bf16_to_f32(in->scale[g]), zero = half_bf16_to_f32(in->zero[g]);
        for (int i = 0; i < T; i++)
            out[i] = scale * (float)in->packed[g * T + i] + zero;
    }
}

HOT static void read_4_bits(float *restrict out, const Groups *in, int n)
{
    for (int g = 0; g < n; g++, out += T) {
        const uint8_t *packed = in->packed + g * T / 2;
        float scale = half_bf16_to_f32(in->scale[g]), zero = half_bf16_to_f32(in->zero[g]);
        for (int i = 0; i < T / 2; i++)
            out[i] = scale * (float)(packed[i] & 15) + zero;
        for (int i = 0; i < T / 2; i++)
            out[T / 2 + i] = scale * (float)(packed[i] >> 4) + zero;
    }
}

HOT static void read_2_bits(float *restrict out, const Groups *in, int n)
{
    for (int g = 0; g < n; g++, out += T) {
        const uint8_t *packed = in->packed + g * T / 4;
        float scale = half_bf16_to_f32(in->scale[g]), zero = half_bf16_to_f32(in->zero[g]);
        for (int part = 0; part < 4; part++)
            for (int i = 0; i < T / 4; i++)
                out[part * T / 4 + i] = scale * (float)(packed[i] >> (2 * part) & 3) + zero;
    }
}

// Two bits as above; the third bits of all 64 codes follow in 8 bytes, from the lowest bit up.
HOT static void read_3_bits(float *restrict out, const Groups *in, int n)
{
    for (int g = 0; g < n; g++, out += T) {
        const uint8_t *packed = in->packed + g * T / 8 * 3;
        float scale = half_bf16_to_f32(in->scale[g]), zero = half_bf16_to_f32(in->zero[g]);
        for (int part = 0; part < 4; part++) {
            const uint8_t *high = packed + T / 4 + part * 2;
            int high_bits = high[0] | high[1] << 8;
#pragma omp simd
            for (int i = 0; i < T / 4; i++) {
                int code = (packed[i] >> (2 * part) & 3) | (high_bits >> i & 1) << 2;
                out[part * T / 4 + i] = scale * (float)code + zero;
            }
        }
    }
}

// out [n][64] = of the groups from `first` on.
static void read_groups(float *out, const KvCodes *codes, int first, int n)
{
    const Groups in = {codes->codes + first * code_bytes(T, codes->bits), codes->scale + first,
                       codes->zero + first};
    if (codes->bits == 8)
        read_8_bits(out, &in, n);
    else if (codes->bits == 4)
        read_4_bits(out, &in, n);
    else if (codes->bits == 3)
        read_3_bits(out, &in, n);
    else
        read_2_bits(out, &in, n);
}

// rows [4][width], 4 columns of them, = of columns [4][64], 4 tokens of them.
static inline void transpose_4(float *rows, const float *columns, int width)
{
#if defined(__SSE__)
    __m128 a = _mm_loadu_ps(columns), b = _mm_loadu_ps(columns + T),
           c = _mm_loadu_ps(columns + 2 * T), d = _mm_loadu_ps(columns + 3 * T);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(rows, a);
    _mm_storeu_ps(rows + width, b);
    _mm_storeu_ps(rows + 2 * (int64_t)width, c);
    _mm_storeu_ps(rows + 3 * (int64_t)width, d);
#else
    for (int t = 0; t < 4; t++)
        for (int c = 0; c < 4; c++)
            rows[(int64_t)t * width + c] = columns[c * T + t];
#endif
}

// Channels of one head, 16 at a time: whole cache lines of the rows.
static void read_head(float *rows, const KvCodes *codes, int width, int head)
{
    enum { COLUMNS = 16 };
    float columns[COLUMNS * T];
    for (int c = 0; c < width; c += COLUMNS) {
        int n = width - c < COLUMNS ? width - c : COLUMNS, n_whole = n / 4 * 4;
        read_groups(columns, codes, head * width + c, n);
        for (int t = 0; t < T; t += 4)
            for (int i = 0; i < n_whole; i += 4)
                transpose_4(rows + (int64_t)t * width + c + i, columns + i * T + t, width);
        for (int i = n_whole; i < n; i++)
            for (int t = 0; t < T; t++)
                rows[(int64_t)t * width + c + i] = columns[i * T + t];
    }
}

void kv_codes_read(float *rows, const KvCodes *codes, KvPart part)
{
    for (int h = 0; codes->grouping == KV_PER_CHANNEL && h < part.n_heads; h++)
        read_head(rows + (int64_t)h * T * part.width, codes, part.width, h);
    for (int g = 0; codes->grouping != KV_PER_CHANNEL && g < kv_part_channels(part); g++) {
        const QuantSpan span = group_span(codes->grouping, part, g);
        float values[T];
        read_groups(values, codes, g, 1);
        for (int i = 0; i < T; i++)
            rows[span.first + i * span.stride] = values[i];
    }
}

void kv_codes_read_channels(float *rows, const KvCodes *codes, KvPart part)
{
    if (codes->grouping == KV_PER_CHANNEL) {
        read_groups(rows, codes, 0, kv_part_channels(part));
        return;
    }
    for (int g = 0; g < kv_part_channels(part); g++) {
        const QuantSpan span = group_span(codes->grouping, part, g);
        float values[T];
        read_groups(values, codes, g, 1);
        for (int i = 0; i < T; i++) {
            int64_t element = span.first + i * span.stride, row = element / part.width;
            int64_t head = row / T, channel = element % part.width;
            rows[(head * part.width + channel) * T + row % T] = values[i];
        }
    }
}
