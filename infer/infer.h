// A model at inference: the layers over new tokens of several sequences at once, whose earlier
// tokens are in the KV cache. One function does all of it: a prompt's chunk is a segment of many
// tokens, a step of decoding one segment of one token for each sequence, and they may be mixed, so
// that the weights are read once for all of them.
//
//     Infer *infer;
//     KvSequence *sequence;
//     TRY(infer_create(&infer, &weights, 512, 1));
//     TRY(kv_sequence_create(&sequence, cache));
//     TRY(infer_prefill(infer, sequence, prompt, n_prompt));
//     infer_logits(infer, logits, infer_hidden(infer, -1), 1);      // of the token that comes next
//     for (...) {
//         int32_t token = choose(logits);
//         TRY(infer_forward(infer, &(InferSegment){sequence, &token, 1}, 1));
//         infer_logits(infer, logits, infer_hidden(infer, -1), 1);
//     }
//
// Activations are float32, weights stay in their type (infer/weights.h), the cache in its own
// (infer/cache/kv_cache.h). With weights for products in bfloat16, activations are rounded where
// they are multiplied; the residual stream, norms, softmax and logits stay float32. Attention to a
// short segment is absorbed, to a long one up-projected (infer/attention/attend.h). Uses OpenMP;
// not re-entrant. Not collective.
#ifndef MHA2MLA_INFER_INFER_H
#define MHA2MLA_INFER_INFER_H

#include "infer/cache/kv_cache.h"
#include "infer/weights.h"

// New tokens of a sequence, each < V, at the positions from its length on. The parent of a branch
// (infer/cache/kv_cache.h) is in the same forward.
typedef struct InferSegment {
    KvSequence *sequence;  // borrowed; in one segment of a forward at most
    const int32_t *tokens; // [count]
    int count;
} InferSegment;

typedef struct Infer Infer;

// For forwards of at most max_tokens tokens in at most max_segments segments. The weights are
// borrowed. FAILED if memory is short.
Status infer_create(Infer **out, const InferWeights *weights, int max_tokens, int max_segments);
void infer_release(Infer *infer); // NULL is allowed

// From now on the bits of a token's results depend on its sequence and the segments that it came
// in, neither on other segments nor on the number of threads. Slower for a few tokens alone.
// max_tokens is above WEIGHT_DIRECT_TOKENS.
void infer_set_reproducible(Infer *infer);

// What infer_create() takes, on n_threads.
int64_t infer_bytes(const ModelShape *shape, int max_tokens, int max_segments, int n_threads);

// Runs the segments through all layers; their tokens are in the cache afterwards. FAILED if the
// cache has no memory for them: the sequences are then as they were.
Status infer_forward(Infer *infer, const InferSegment *segments, int n_segments);

// The same for a whole prompt, in chunks of max_tokens, after which the cache may quantize all of
// it (kv_sequence_end_prompt()). count > 0. After an error the first chunks may be in the cache.
Status infer_prefill(Infer *infer, KvSequence *sequence, const int32_t *tokens, int64_t count);

// Outputs of the last norm for the rows of the last forward (of a prefill: of its last chunk), all
// segments' tokens in their order: those from `row` on, or the last one for -1. Valid until the
// next forward.
const float *infer_hidden(const Infer *infer, int row); // [.., D]

// Logits of n such rows, at most max_tokens of them.
void infer_logits(Infer *infer,
                  float *logits,       // [n, V]
                  const float *hidden, // [n, D]
                  int n);

// Those of tokens [first, first + count) of the vocabulary alone: multiples of WEIGHT_BLOCK, but
// for the end.
void infer_logits_part(Infer *infer,
                       float *logits,       // [n, count]
                       const float *hidden, // [n, D]
                       int n, int first, int count);

#endif
