// Widens blocks of the KV cache to float32. See kv_block.h.
#include "infer/cache/kv_block.h"

#include "base/simd.h"
#include "model/kernels/half.h"

#include <string.h>

HOT static void widen_bfloat16(float *restrict out, const uint16_t *restrict in, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = half_bf16_to_f32(in[i]);
}

static void widen(float *out, const void *in, KvType type, int64_t count)
{
    if (type == KV_FLOAT32)
        memcpy(out, in, (size_t)count * sizeof *out);
    else
        widen_bfloat16(out, in, count);
}

void kv_block_widen(const KvBlock *b, float *key, float *value)
{
    const int T = KV_BLOCK_TOKENS, n_channels = kv_part_channels(b->key_part);
    widen(key, b->key, b->type, (int64_t)n_channels * T);
    widen(value, b->value, b->type, (int64_t)kv_part_channels(b->value_part) * T);
    // The cache's own memory beyond `count` holds zeros or rows of a sequence that shares it.
    if (b->count == T)
        return;
    for (int c = 0; c < n_channels; c++)
        memset(key + (int64_t)c * T + b->count, 0, (size_t)(T - b->count) * sizeof *key);
    for (int h = 0; h < b->value_part.n_heads; h++)
        memset(value + ((int64_t)h * T + b->count) * b->value_part.width, 0,
               (size_t)(T - b->count) * b->value_part.width * sizeof *value);
}
