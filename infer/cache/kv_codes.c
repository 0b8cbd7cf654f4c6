// One layout of codes for every scheme: groups of 64, each packed by itself, differ only in which
// elements they hold. See kv_codes.h.
#include "infer/cache/kv_codes.h"

#include "infer/cache/code_pack.h"
#include "infer/cache/quant_groups.h"
#include "infer/cache/quantize_channel.h"
#include "infer/cache/quantize_hqq.h"
#include "infer/cache/quantize_quanto.h"
#include "model/kernels/half.h"

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

static void read_group(float values[T], const KvCodes *codes, int group)
{
    uint8_t run[T];
    code_unpack(run, codes->codes + group * code_bytes(T, codes->bits), T, codes->bits);
    dequantize_channel(values, run, codes->scale + group, codes->zero + group, 1);
}

void kv_codes_read(float *rows, const KvCodes *codes, KvPart part)
{
    for (int g = 0; g < kv_part_channels(part); g++) {
        const QuantSpan span = group_span(codes->grouping, part, g);
        float values[T];
        read_group(values, codes, g);
        for (int i = 0; i < T; i++)
            rows[span.first + i * span.stride] = values[i];
    }
}

void kv_codes_read_channels(float *rows, const KvCodes *codes, KvPart part)
{
    for (int g = 0; g < kv_part_channels(part); g++) {
        if (codes->grouping == KV_PER_CHANNEL) {
            read_group(rows + (int64_t)g * T, codes, g);
            continue;
        }
        const QuantSpan span = group_span(codes->grouping, part, g);
        float values[T];
        read_group(values, codes, g);
        for (int i = 0; i < T; i++) {
            int64_t element = span.first + i * span.stride, row = element / part.width;
            int64_t head = row / T, channel = element % part.width;
            rows[(head * part.width + channel) * T + row % T] = values[i];
        }
    }
}
