// The sum and not the mean: ranks add their parts before they divide by the number of targets.
#include "eval/perplexity.h"

Status perplexity_batch(double *loss_sum, Workspace *ws, const Model *model, Source *source,
                        Batch *batch, int64_t first, int count)
{
    for (int row = 0; row < count; row++) {
        TRY(source_read(source, first + row, batch->sample));
        batch_set(batch, row);
    }
    workspace_set_batch(ws, count);
    transformer_forward(ws, model, batch->inputs, NULL);
    // scale is that of the gradients, of which there are none.
    *loss_sum = transformer_loss(ws, model, batch->targets, 0, NULL);
    workspace_set_batch(ws, ws->placed_B); // the last batch may have been a short one
    return OK;
}
