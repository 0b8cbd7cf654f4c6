#include "eval/perplexity.h"

Status perplexity_add(Perplexity *sum, Workspace *ws, const Model *model, Source *source,
                      Batch *batch, int64_t first, int64_t end, int64_t stride)
{
    int most = ws->placed_B;
    for (int64_t window = first; window < end;) {
        int rows = 0;
        for (; rows < most && window < end; rows++, window += stride) {
            TRY(source_read(source, window, batch->sample));
            batch_set(batch, rows);
        }
        transformer_set_batch(ws, rows);
        transformer_forward(ws, model, batch->inputs, NULL);
        sum->loss_sum += transformer_loss(ws, model, batch->targets, 0, NULL);
        sum->n_tokens += (double)rows * ws->T;
    }
    transformer_set_batch(ws, most);
    return OK;
}
