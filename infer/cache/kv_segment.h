// The beginning of a sequence as transformers' quantized cache holds it: in each layer the keys and
// the values of its first n tokens are one tensor [1, heads, n, width], which hqq or optimum-quanto
// quantized as a whole. A segment does not change; sequences share it by reference.
//
//     KvSegment *segment;
//     TRY(kv_segment_create(&segment, &layout, pool, n_tokens));
//     for (int layer = 0; layer < n_layers; layer++)
//         kv_segment_quantize(segment, layer, key, value, scratch);
//     kv_segment_read(key, value, segment, layer, 64, 64); // tokens 64 to 127
//     kv_segment_drop(segment, pool);
//
// In float32 codes, scales and zeros are those of the libraries on float32 tensors, in bfloat16
// those on bfloat16 tensors. Scales and zeros take 32 bits each here, so that 64 numbers cost b + 1
// bits.
#ifndef MHA2MLA_INFER_CACHE_KV_SEGMENT_H
#define MHA2MLA_INFER_CACHE_KV_SEGMENT_H

#include "infer/cache/kv_page.h"

// Without content; one reference. FAILED with the numbers if the pool's limit is exceeded.
Status kv_segment_create(KvSegment **out, const KvPageLayout *layout, KvPool *pool, int n_tokens);

// A layer's content, once, from all its tokens. scratch: kv_segment_scratch_bytes().
void kv_segment_quantize(KvSegment *segment, int layer,
                         const float *key,   // [K][n_tokens][key width]
                         const float *value, // [heads][n_tokens][value width]
                         void *scratch);
int64_t kv_segment_scratch_bytes(const KvSegment *segment);

// Tokens first .. first + count - 1 of a layer, count at most 64, as a block holds them; nothing
// else is written.
void kv_segment_read(float *key,   // [K][key width][64]
                     float *value, // [heads][64][value width]
                     const KvSegment *segment, int layer, int first, int count);

int kv_segment_tokens(const KvSegment *segment);
void kv_segment_retain(KvSegment *segment);
void kv_segment_drop(KvSegment *segment, KvPool *pool);

#endif
