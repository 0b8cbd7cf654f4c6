// Collects a sequence's blocks into whole tensors and quantizes them. See kv_requantize.h.
#include "infer/cache/kv_requantize.h"

#include <omp.h>
#include <stdlib.h>

enum { T = KV_BLOCK_TOKENS };

// Of one thread: a layer's two tensors, a block's, and the segment's own.
typedef struct Scratch {
    float *key, *value;             // [heads][n_tokens][width]
    float *block_key, *block_value; // as kv_block_widen() writes them
    void *segment;
} Scratch;

static int64_t scratch_bytes(const KvPageLayout *layout, const KvSegment *segment, int n_tokens)
{
    int64_t channels = kv_part_channels(layout->key) + kv_part_channels(layout->value);
    int64_t bytes = channels * (n_tokens + T) * (int64_t)sizeof(float);
    return (bytes + kv_segment_scratch_bytes(segment) + 63) / 64 * 64;
}

static Scratch scratch_at(char *memory, const KvPageLayout *layout, int n_tokens)
{
    Scratch s = {.key = (float *)(void *)memory};
    s.value = s.key + (int64_t)kv_part_channels(layout->key) * n_tokens;
    s.block_key = s.value + (int64_t)kv_part_channels(layout->value) * n_tokens;
    s.block_value = s.block_key + (int64_t)kv_part_channels(layout->key) * T;
    s.segment = s.block_value + (int64_t)kv_part_channels(layout->value) * T;
    return s;
}

// The first `count` tokens of a block to their places in the tensors.
static void collect_block(const Scratch *s, const KvBlock *b, int count, int n_tokens)
{
    kv_block_widen(b, s->block_key, s->block_value);
    const int key_width = b->key_part.width, value_width = b->value_part.width;
    for (int h = 0; h < b->key_part.n_heads; h++)
        for (int t = 0; t < count; t++) {
            float *row = s->key + ((int64_t)h * n_tokens + b->first + t) * key_width;
            for (int c = 0; c < key_width; c++)
                row[c] = s->block_key[((int64_t)h * key_width + c) * T + t];
        }
    for (int h = 0; h < b->value_part.n_heads; h++)
        for (int t = 0; t < count; t++) {
            float *row = s->value + ((int64_t)h * n_tokens + b->first + t) * value_width;
            for (int c = 0; c < value_width; c++)
                row[c] = s->block_value[((int64_t)h * T + t) * value_width + c];
        }
}

// transformers concatenates what it dequantizes, the residual and the new tokens: here the blocks
// give all three, as attention sees them.
static void quantize_layer(KvSegment *segment, const KvSequence *sequence, int layer,
                           const Scratch *s, int n_tokens)
{
    for (int i = 0; i * T < n_tokens; i++) {
        const KvBlock block = kv_block(sequence, layer, i);
        int left = n_tokens - block.first;
        collect_block(s, &block, left < block.count ? left : block.count, n_tokens);
    }
    kv_segment_quantize(segment, layer, s->key, s->value, s->segment);
}

Status kv_requantize(KvSegment **out, const KvSequence *sequence, const KvPageLayout *layout,
                     KvPool *pool, int n_tokens)
{
    KvSegment *segment;
    TRY(kv_segment_create(&segment, layout, pool, n_tokens));
    // All threads' scratch is there before any of them begins: what can fail has not begun to
    // write.
    int64_t bytes = scratch_bytes(layout, segment, n_tokens);
    char *memory = malloc((size_t)(bytes * omp_get_max_threads()));
    if (memory == NULL) {
        kv_segment_drop(segment, pool);
        return fail(FAILED, "KV cache: no memory to quantize %d tokens in", n_tokens);
    }
#pragma omp parallel for schedule(dynamic)
    for (int layer = 0; layer < layout->n_layers; layer++) {
        const Scratch s = scratch_at(memory + omp_get_thread_num() * bytes, layout, n_tokens);
        quantize_layer(segment, sequence, layer, &s, n_tokens);
    }
    free(memory);
    *out = segment;
    return OK;
}
