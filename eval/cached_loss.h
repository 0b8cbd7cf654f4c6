// Loss of a model as decoding computes it: over a KV cache in any format, whose rounding the loss
// shows.
//
//     CachedLoss *cached;
//     TRY(cached_loss_create(&cached, "runs/demo-dkv8/model", &format, T));
//     TRY(cached_loss_window(&loss_sum, cached, sample));
//     cached_loss_release(cached);
//
// Every position reads what it would read if the window's tokens came one by one: blocks are
// quantized after every 64 tokens, and until then tokens are exact. With the reference policy the
// first half of the window is the prompt, which is quantized at its end.
#ifndef MHA2MLA_EVAL_CACHED_LOSS_H
#define MHA2MLA_EVAL_CACHED_LOSS_H

#include "infer/infer.h"

typedef struct CachedLoss CachedLoss;

// For windows of T targets. The weights are borrowed. BAD_INPUT if the format does not fit the
// model, or the window is too short for the reference policy to quantize any of it; FAILED if
// memory is short.
Status cached_loss_create(CachedLoss **out, const InferWeights *weights, const KvFormat *format,
                          int T);
void cached_loss_release(CachedLoss *cached); // NULL is allowed

// Sum over the T targets, in nats.
Status cached_loss_window(double *loss_sum, CachedLoss *cached,
                          const int32_t *sample); // [T + 1]

#endif
