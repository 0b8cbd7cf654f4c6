// The attention loss: how far the outputs of a model's attention, after the output projection, are
// from those of a teacher in the same layer,
//
//     mean over layers and sequences of   sum |output - target|^2 / sum |target|^2,
//
// both sums over the tokens of a sequence, so that the loss does not depend on how sequences are
// cut into micro-batches.
//
//     attention_match_place(&match, &arena, &shape, compute, B, T);      // twice: measure, place
//     teacher_ws.keeps = &match;
//     transformer_forward(&teacher_ws, &teacher, inputs, NULL);          // leaves the targets
//     attention_match_start(&match, scale);
//     ws.follows = &match;
//     transformer_forward(&ws, &model, inputs, NULL);                    // leaves gradients
//     transformer_loss(...); transformer_backward(...);                  // which add them
//     loss += attention_match_loss(&match, B);
//
// Forward compares each layer where its output is at hand and puts the gradient in place of the
// target, the only [N, D] that a layer keeps for it; backward adds it to the gradient of the
// residual stream for the layer's output projection, and to nothing else.
#ifndef MHA2MLA_MODEL_TRANSFORMER_ATTENTION_MATCH_H
#define MHA2MLA_MODEL_TRANSFORMER_ATTENTION_MATCH_H

#include "base/arena.h"
#include "model/kernels/compute.h"
#include "model/kernels/rows.h"
#include "model/shape.h"

typedef struct AttentionMatch {
    int n_layers, T, D;
    float scale;     // of the gradient of attention_match_loss()
    float *output;   // [N, D] of the layer at hand
    double *squares; // [2, N] of the errors and of the targets of its tokens
    double *losses;  // [B] of the sequences, summed over layers
    Rows *layers;    // [L] of [N, D]: targets, then gradients, bfloat16 where products are
} AttentionMatch;

void attention_match_place(AttentionMatch *out, Arena *arena, const ModelShape *shape,
                           ComputeType compute, int B, int T);

// Before the pass of the model that follows: the gradients are those of `scale` times the loss.
void attention_match_start(AttentionMatch *match, float scale, int B);

// Keeps the output as the layer's target.
void attention_match_keep(const AttentionMatch *match, int layer, int B);

// Adds the layer's loss; its target becomes the gradient of the output.
void attention_match_compare(const AttentionMatch *match, int layer, int B);

// The gradient of the layer's output with that of the residual stream, dx [N, D], added.
Rows attention_match_gradient(const AttentionMatch *match, int layer, const float *dx, int B);

// Sum over the B sequences of the mean over layers.
double attention_match_loss(const AttentionMatch *match, int B);

#endif
