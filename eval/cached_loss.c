#include "eval/cached_loss.h"

#include "base/intmath.h"
#include "model/kernels/head.h"

#include <stdlib.h>

// Tokens of a forward. The cache quantizes at multiples of it alone (counted from the end of the
// prompt with the reference policy), so that more tokens at once read what single ones would.
enum { CHUNK = KV_BLOCK_TOKENS };

struct CachedLoss {
    const InferWeights *weights; // borrowed
    KvCache *cache;
    Infer *infer;
    float *logits; // [CHUNK, V]
    int T;
    int prompt; // tokens before kv_sequence_end_prompt(); 0: there is no prompt
};

Status cached_loss_create(CachedLoss **out, const InferWeights *weights, const KvFormat *format,
                          int T)
{
    const ModelShape *shape = &weights->shape;
    Status status;
    int prompt = format->reference_policy ? T / 2 / CHUNK * CHUNK : 0;
    if (format->reference_policy && prompt == 0)
        return fail(BAD_INPUT,
                    "windows of %d tokens: the reference policy quantizes their first half, and "
                    "needs %d at least",
                    T, 2 * CHUNK);
    CachedLoss *cached = calloc(1, sizeof *cached);
    if (cached == NULL)
        return fail(FAILED, "no memory to measure a loss");
    *cached = (CachedLoss){.weights = weights, .T = T, .prompt = prompt};
    TRY_GOTO(release, kv_cache_create(&cached->cache, shape, format, 0));
    TRY_GOTO(release, infer_create(&cached->infer, weights, CHUNK, 1));
    cached->logits = malloc((size_t)CHUNK * (size_t)shape->vocab_size * sizeof *cached->logits);
    status = cached->logits != NULL ? OK : fail(FAILED, "no memory for %d tokens' logits", CHUNK);
    TRY_GOTO(release, status);
    *out = cached;
    return OK;
release:
    cached_loss_release(cached);
    return status;
}

void cached_loss_release(CachedLoss *cached)
{
    if (cached == NULL)
        return;
    free(cached->logits);
    infer_release(cached->infer);
    kv_cache_release(cached->cache);
    free(cached);
}

static double chunk_loss(CachedLoss *cached, const int32_t *targets, int n)
{
    const int V = cached->weights->shape.vocab_size;
    double sum = 0;
    float inverse_sum;
    infer_logits(cached->infer, cached->logits, infer_hidden(cached->infer, 0), n);
    for (int t = 0; t < n; t++)
        sum += head_token_loss(cached->logits + (int64_t)t * V, V, targets[t], &inverse_sum);
    return sum;
}

Status cached_loss_window(double *loss_sum, CachedLoss *cached, const int32_t *sample)
{
    KvSequence *sequence;
    Status status = OK;
    double sum = 0;
    TRY(kv_sequence_create(&sequence, cached->cache));
    for (int first = 0; first < cached->T; first += CHUNK) {
        const int n = min_int(CHUNK, cached->T - first);
        if (first > 0 && first == cached->prompt)
            TRY_GOTO(release, kv_sequence_end_prompt(sequence));
        const InferSegment segment = {sequence, sample + first, n};
        TRY_GOTO(release, infer_forward(cached->infer, &segment, 1));
        sum += chunk_loss(cached, sample + first + 1, n);
    }
    *loss_sum = sum;
release:
    kv_sequence_release(sequence);
    return status;
}
