// Forward and backward of the whole model over a micro-batch of B sequences of T tokens.
//
//     Workspace ws;
//     ... placed in two arenas, see model/transformer/workspace.h ...
//     transformer_start(&ws, &model);
//     transformer_forward(&ws, &model, inputs, NULL);
//     loss_sum += transformer_loss(&ws, &model, targets, 1.0f / n_targets, &grads);
//     transformer_backward(&ws, &model, inputs, &grads);
//
// Nothing of N x V or T x T exists: head and cross-entropy go by blocks of tokens, attention by
// tiles. Matrix products are those of model/kernels/gemm.h, loops OpenMP's. Not collective.
#ifndef MHA2MLA_MODEL_TRANSFORMER_TRANSFORMER_H
#define MHA2MLA_MODEL_TRANSFORMER_TRANSFORMER_H

#include "model/convert/rope_scores.h"
#include "model/kernels/head_kl.h"
#include "model/model.h"
#include "model/transformer/workspace.h"

// Fills the RoPE tables. To be called once after placing.
void transformer_start(Workspace *ws, const Model *model);

// Runs the layers. `scores`, if not NULL, collects the pair norms of queries and keys before RoPE
// (original attention only).
void transformer_forward(Workspace *ws, const Model *model,
                         const int32_t *inputs, // [B, T], each < V
                         RopeScores *scores);

// The same layer by layer, for passes that take many batches through one layer after another:
// x [N, D] = the embedding, and x = the layer of x; and what the heads of a layer give for x before
// their output projection, [N, H E] in the workspace until its next use.
void transformer_embed(const Workspace *ws, const Model *model, const int32_t *inputs, float *x);
void transformer_layer(Workspace *ws, const Model *model, int layer, float *x);
Rows transformer_heads(Workspace *ws, const Model *model, int layer, const float *x);

// The two blocks of a layer apart: out [N, D] = attention(norm(x)), which the layer adds to x, and
// x [N, D] += ffn(norm(x)). The backward of attention alone takes d_out [N, D], of the call that
// was the last with this workspace; the gradients of the layer's attention are += or =, that of x
// is dropped.
void transformer_attention(Workspace *ws, const Model *model, int layer, const float *x,
                           float *out);
void transformer_attention_backward(Workspace *ws, const Model *model, int layer,
                                    const float *d_out, Params *grads);
void transformer_ffn(Workspace *ws, const Model *model, int layer, float *x);

// Sum of the cross-entropy over the targets, in nats; with grads also its gradient times `scale`,
// for transformer_backward. grads NULL: the loss alone.
double transformer_loss(Workspace *ws, const Model *model,
                        const int32_t *targets, // [B, T], each < V
                        float scale, Params *grads);

// The losses beside a teacher's (model/kernels/head_kl.h), which has the normed rows of the same
// inputs, and the gradient of their weighted sum times `scale`. `scratch` is
// head_kl_scratch_bytes().
HeadLosses transformer_kl_losses(Workspace *ws, const Model *model,
                                 const int32_t *targets, // [B, T], each < V
                                 const HeadTeacher *teacher, const HeadWeights *weights,
                                 void *scratch, float scale, Params *grads);

// What forward has left for the head: normed [N, D] = the last norm of its output.
void transformer_normed(Workspace *ws, const Model *model, Rows normed);

// grads += the gradients, or = with fresh_gradients, but for those whose pointers are NULL. Once
// after transformer_loss() with grads: what forward left is used up.
void transformer_backward(Workspace *ws, const Model *model,
                          const int32_t *inputs, // [B, T]
                          Params *grads);

// Logits of the tokens first .. first + count - 1 of the N of the micro-batch.
void transformer_logits(Workspace *ws, const Model *model, int first, int count,
                        float *logits); // [count, V]

#endif
