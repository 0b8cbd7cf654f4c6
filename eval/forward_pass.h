// Memory for forward passes without a backward, one sequence at a time: workspace and batch in one
// arena, for perplexity and calibration. One sequence is as fast as several and needs the least.
// Every position is computed anew: there is no KV cache here.
//
//     ForwardPass pass;
//     TRY(forward_pass_start(&pass, &model, T, COMPUTE_FLOAT32));
//     ... transformer_forward(&pass.ws, &model, pass.batch.inputs, NULL) ...
//     forward_pass_release(&pass);
#ifndef MHA2MLA_EVAL_FORWARD_PASS_H
#define MHA2MLA_EVAL_FORWARD_PASS_H

#include "data/batch.h"
#include "model/transformer/transformer.h"

typedef struct ForwardPass {
    Arena arena; // owns what the others point to
    Workspace ws;
    Batch batch;
} ForwardPass;

// Sequences of T tokens, products in `compute`. FAILED if memory is short.
Status forward_pass_start(ForwardPass *out, const Model *model, int T, ComputeType compute);

void forward_pass_release(ForwardPass *pass); // a zeroed one is allowed

// What forward_pass_start() takes besides the model.
int64_t forward_pass_bytes(const ModelShape *shape, int T, ComputeType compute);

// The part of it that is touched where layers are run one by one and logits are never computed.
int64_t forward_pass_layer_bytes(const ModelShape *shape, int T, ComputeType compute);

#endif
