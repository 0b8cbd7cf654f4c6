// transformers' policy of a quantized cache: all tokens of a sequence, those that were quantized
// already included, become one segment again (infer/cache/kv_segment.h).
//
//     KvSegment *segment;
//     TRY(kv_requantize(&segment, sequence, &layout, pool, n_tokens));
#ifndef MHA2MLA_INFER_CACHE_KV_REQUANTIZE_H
#define MHA2MLA_INFER_CACHE_KV_REQUANTIZE_H

#include "infer/cache/kv_cache.h"
#include "infer/cache/kv_segment.h"

// A segment of the first n_tokens (written in every layer), one reference. FAILED if the pool's
// limit is exceeded or there is no memory; the sequence is only read. OpenMP over layers.
Status kv_requantize(KvSegment **out, const KvSequence *sequence, const KvPageLayout *layout,
                     KvPool *pool, int n_tokens);

#endif
