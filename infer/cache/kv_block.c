// Widens blocks of the KV cache to float32. See kv_block.h.
#include "infer/cache/kv_block.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "infer/cache/kv_segment.h"
#include "model/kernels/half.h"

#include <string.h>

HOT static void widen_bfloat16(float *restrict out, const uint16_t *restrict in, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = half_bf16_to_f32(in[i]);
}

static void widen_rows(float *out, const void *in, KvType type, KvPart part)
{
    int64_t count = (int64_t)kv_part_channels(part) * KV_BLOCK_TOKENS;
    if (type == KV_FLOAT32)
        memcpy(out, in, (size_t)count * sizeof *out);
    else
        widen_bfloat16(out, in, count);
}

// The cache's own memory beyond `count` holds zeros or rows of a sequence that shares it.
static void clear_behind(float *key, float *value, const KvBlock *b)
{
    const int T = KV_BLOCK_TOKENS, n_behind = T - b->count;
    for (int c = 0; n_behind > 0 && c < kv_part_channels(b->key_part); c++)
        memset(key + (int64_t)c * T + b->count, 0, (size_t)n_behind * sizeof *key);
    for (int h = 0; n_behind > 0 && h < b->value_part.n_heads; h++)
        memset(value + ((int64_t)h * T + b->count) * b->value_part.width, 0,
               (size_t)n_behind * b->value_part.width * sizeof *value);
}

static void widen_segment(float *key, float *value, const KvBlock *b)
{
    // Without positions behind the segment, the block has no rows.
    if (b->first + b->count > b->n_quantized) {
        widen_rows(key, b->key, b->type, b->key_part);
        widen_rows(value, b->value, b->type, b->value_part);
    }
    kv_segment_read(key, value, b->segment, b->layer, b->first,
                    min_int(b->count, b->n_quantized - b->first));
}

static KvFetch fetch_of(const void *memory, int64_t size_bytes, int n_slices)
{
    return (KvFetch){memory, (int)((size_bytes + 63) / 64), n_slices};
}

static void fetch_codes(const KvCodes *codes, KvPart part)
{
    KvFetch packed = fetch_of(codes->codes, kv_codes_packed_bytes(part, codes->bits), 1),
            scales = fetch_of(codes->scale, kv_codes_scales_bytes(part), 1); // and zeros
    kv_fetch_slice(&packed);
    kv_fetch_slice(&scales);
}

KvFetch kv_block_fetch(const KvBlock *b, int n_slices)
{
    const int n_channels = kv_part_channels(b->key_part) + kv_part_channels(b->value_part);
    if (b->kind == KV_ROWS) // values follow keys
        return fetch_of(b->key, (int64_t)n_channels * KV_BLOCK_TOKENS * kv_type_bytes(b->type),
                        n_slices);
    if (b->kind == KV_CODES) {
        fetch_codes(&b->key_codes, b->key_part);
        fetch_codes(&b->value_codes, b->value_part);
    }
    return (KvFetch){0};
}

void kv_block_widen(const KvBlock *b, float *key, float *value)
{
    switch (b->kind) {
    case KV_ROWS:
        widen_rows(key, b->key, b->type, b->key_part);
        widen_rows(value, b->value, b->type, b->value_part);
        break;
    case KV_CODES:
    case KV_GROUPS:
        kv_codes_read_channels(key, &b->key_codes, b->key_part);
        kv_codes_read(value, &b->value_codes, b->value_part);
        break;
    case KV_SEGMENT:
        widen_segment(key, value, b);
        break;
    }
    clear_behind(key, value, b);
}
