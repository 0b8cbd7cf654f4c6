// A model that only reads: the workspace of forward without backward for one sequence at a time,
// and its batch, in one arena. One sequence is as fast as several, and needs the least memory.
//
//     Inference inference;
//     TRY(inference_start(&inference, &model, T));
//     ... transformer_forward(&inference.ws, &model, inference.batch.inputs, NULL) ...
//     inference_release(&inference);
#ifndef MHA2MLA_EVAL_INFERENCE_H
#define MHA2MLA_EVAL_INFERENCE_H

#include "data/batch.h"
#include "model/transformer/transformer.h"

typedef struct Inference {
    Arena arena; // owns what the others point to
    Workspace ws;
    Batch batch;
} Inference;

// Sequences of T tokens. FAILED if memory is short.
Status inference_start(Inference *out, const Model *model, int T);

void inference_release(Inference *inference); // a zeroed one is allowed

// What inference_start() takes besides the model.
int64_t inference_bytes(const ModelShape *shape, int T);

#endif
