// One part of a block of the KV cache in codes: 64 tokens of a layer's keys or values, quantized
// once and never again.
//
//     value = scale * code + zero
//
// 64 codes share a scale and a zero, so that there are as many groups as channels. Which elements a
// group holds is the scheme's choice (kv_codes_grouping()); elements of a part are numbered as
// those of a tensor [heads][64 tokens][width].
//
//     KvCodes codes = kv_codes_at(packed, scales, part, 4, kv_codes_grouping(&format, part));
//     kv_codes_quantize(&codes, part, rows, &format, scratch);
//     kv_codes_read(rows, &codes, part);
#ifndef MHA2MLA_INFER_CACHE_KV_CODES_H
#define MHA2MLA_INFER_CACHE_KV_CODES_H

#include "infer/cache/kv_format.h"

typedef enum KvGrouping {
    KV_PER_CHANNEL, // group head * width + c: channel c of the head
    KV_SPREAD,      // group g of n: elements g, g + n, ..., g + 63 n
    KV_NEIGHBOURS,  // group g: elements 64 g .. 64 g + 63
} KvGrouping;

typedef struct KvCodes {
    KvGrouping grouping;
    int bits;
    uint8_t *codes;  // [groups][8 bits]: packed as a run of 64 (infer/cache/code_pack.h)
    uint16_t *scale; // [groups] bfloat16
    uint16_t *zero;  // [groups] bfloat16
} KvCodes;

// How the format's scheme and axis group a part of 64 tokens. KV_HQQ's axis 0 and KV_QUANTO's axis
// -1 amount to channels where the part has one head.
KvGrouping kv_codes_grouping(const KvFormat *format, KvPart part);

// Bytes of a part's packed codes, and of its scales and zeros.
static inline int64_t kv_codes_packed_bytes(KvPart part, int bits)
{
    return (int64_t)kv_part_channels(part) * KV_BLOCK_TOKENS / 8 * bits;
}

static inline int64_t kv_codes_scales_bytes(KvPart part)
{
    return (int64_t)kv_part_channels(part) * 2 * (int64_t)sizeof(uint16_t);
}

// The arrays of a part in borrowed memory of these sizes; the zeros follow the scales.
KvCodes kv_codes_at(uint8_t *packed, uint16_t *scales, KvPart part, int bits, KvGrouping grouping);

// Bytes of scratch that quantizing a part needs.
int64_t kv_codes_scratch_bytes(KvPart part);

// codes, scale and zero = of rows [heads][64][width], all 64 tokens. Of KV_HQQ and KV_QUANTO they
// are what the library makes of the part as a tensor, with scale and zero rounded to bfloat16.
void kv_codes_quantize(const KvCodes *codes, KvPart part, const float *rows, const KvFormat *format,
                       void *scratch);

// rows [heads][64][width] = of the codes.
void kv_codes_read(float *rows, const KvCodes *codes, KvPart part);

// The same with rows channel by channel: [heads][width][64].
void kv_codes_read_channels(float *rows, const KvCodes *codes, KvPart part);

#endif
