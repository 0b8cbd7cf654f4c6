// The KV cache: what decoding keeps of the tokens it has seen, sequence by sequence, in pages of 64
// positions that grow with the sequence and are shared by sequences with the same beginning.
//
//     KvCache *cache;
//     TRY(kv_cache_create(&cache, &shape, &format, max_bytes));
//     KvSequence *prompt, *answer;
//     TRY(kv_sequence_create(&prompt, cache));
//     TRY(kv_sequence_reserve(prompt, n));
//     for (int layer = 0; layer < shape.n_layers; layer++) {
//         kv_write(prompt, layer, key, ld_key, latent, ld_latent, n);
//         for (int i = 0; i < kv_n_blocks(prompt, kv_sequence_length(prompt) + n); i++)
//             ...kv_block(prompt, layer, i)... // sees the rows just written, too
//     }
//     TRY(kv_sequence_commit(prompt, n));
//     TRY(kv_sequence_fork(&answer, prompt)); // shares the prompt's pages
//     ...
//     kv_sequence_release(answer);
//     kv_sequence_release(prompt);
//     kv_cache_release(cache);
//
// New tokens are rows in the format's type. In a quantized format the oldest 64 of them become
// codes when a commit leaves 128 rows or more, and are never touched again: the newest 64 to 127
// tokens are exact.
//
// A page that several sequences hold is never written where they read: the first of them to reserve
// room in it gets a copy. Different sequences of a cache may be used from different threads at the
// same time; one sequence by one thread at a time.
#ifndef MHA2MLA_INFER_CACHE_KV_CACHE_H
#define MHA2MLA_INFER_CACHE_KV_CACHE_H

#include "infer/cache/kv_block.h"

typedef struct KvCache KvCache;
typedef struct KvSequence KvSequence;

// max_bytes: the most that all sequences' pages may take; 0: no limit. BAD_INPUT if the format does
// not fit the shape or one page exceeds the limit, with the numbers.
Status kv_cache_create(KvCache **out, const ModelShape *shape, const KvFormat *format,
                       int64_t max_bytes);

// A cache that keeps one layer at a time, the one written last, so that its pages take 1/L: for
// sequences that run in one forward and are not read again. Of a plain format.
Status kv_cache_create_passing(KvCache **out, const ModelShape *shape, const KvFormat *format);

// All sequences must have been released.
void kv_cache_release(KvCache *cache);

// Bytes of the pages that sequences hold, now and at most so far; shared pages count once.
int64_t kv_cache_bytes(const KvCache *cache);
int64_t kv_cache_peak_bytes(const KvCache *cache);

// An empty sequence. The cache must outlive it.
Status kv_sequence_create(KvSequence **out, KvCache *cache);

// A sequence with the parent's committed tokens, sharing its pages.
Status kv_sequence_fork(KvSequence **out, KvSequence *parent);

// In a passing cache: a sequence that continues the first n_tokens of the parent's, which run in
// the same forward; in each layer the parent's are written first. The parent must outlive it, and
// is no branch itself.
Status kv_sequence_branch(KvSequence **out, KvSequence *parent, int n_tokens);
bool kv_sequence_is_branch(const KvSequence *sequence);

void kv_sequence_release(KvSequence *sequence);

// Committed tokens.
int kv_sequence_length(const KvSequence *sequence);

// Room for n_tokens beyond the committed ones: afterwards writing them cannot fail. What was
// written and not committed is forgotten. FAILED with the numbers if the cache's limit is exceeded;
// the committed tokens then are as they were.
Status kv_sequence_reserve(KvSequence *sequence, int n_tokens);

// The rows of n new tokens in one layer, at positions length .. length + n - 1, once per layer
// between two commits. Room for them is reserved.
void kv_write(KvSequence *sequence, int layer,
              const float *key,   // [n, K key width] rotated, rows ld_key apart
              int ld_key,         //
              const float *value, // [n, heads * value width, then factors], rows ld_value apart
              int ld_value, int n);

// The n_tokens written in every layer count from now on. FAILED, with nothing changed, without
// memory to quantize in; in the reference policy also where the limit has no room for the old codes
// and the new ones together.
Status kv_sequence_commit(KvSequence *sequence, int n_tokens);

// The prompt is committed; what follows is generated. Once, for the reference policy, which
// quantizes the whole prompt now; until then its tokens are rows. FAILED as kv_sequence_reserve().
Status kv_sequence_end_prompt(KvSequence *sequence);

// The blocks that hold the first n_tokens positions, written or committed.
int kv_n_blocks(const KvSequence *sequence, int n_tokens);

// Block `index` of one layer, counted from position 0. Its rows just written are in it.
KvBlock kv_block(const KvSequence *sequence, int layer, int index);

#endif
