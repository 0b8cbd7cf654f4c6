// Loss of a model in nats per token over consecutive windows of a source.
//
//     Perplexity sum = {0};
//     TRY(perplexity_add(&sum, &ws, &model, source, &batch, rank, n_windows, n_ranks));
//     loss = sum.loss_sum / sum.n_tokens;      // after summing both over ranks
#ifndef MHA2MLA_EVAL_PERPLEXITY_H
#define MHA2MLA_EVAL_PERPLEXITY_H

#include "data/batch.h"
#include "data/source.h"
#include "model/transformer.h"

typedef struct Perplexity {
    double loss_sum; // nats
    double n_tokens; // targets; a double so that ranks sum both at once
} Perplexity;

// Adds windows first, first + stride, ... below `end` of the source, each T + 1 tokens. `ws` and
// `batch` are placed for the same B and T. Errors are those of reading.
Status perplexity_add(Perplexity *sum, Workspace *ws, const Model *model, Source *source,
                      Batch *batch, int64_t first, int64_t end, int64_t stride);

#endif
