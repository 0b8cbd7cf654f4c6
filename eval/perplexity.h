// Loss of a model in nats per token over consecutive windows of a source.
//
//     TRY(perplexity_batch(&loss_sum, &ws, &model, source, &batch, first, count));
//     loss = loss_sum / (count * T);
#ifndef MHA2MLA_EVAL_PERPLEXITY_H
#define MHA2MLA_EVAL_PERPLEXITY_H

#include "data/batch.h"
#include "data/shards/source.h"
#include "model/transformer/transformer.h"

// The sum over the targets of windows [first, first + count) of the source, each T + 1 tokens, in
// nats. count is at most what `ws` and `batch` are placed for. Errors are those of reading.
Status perplexity_batch(double *loss_sum, Workspace *ws, const Model *model, Source *source,
                        Batch *batch, int64_t first, int count);

#endif
