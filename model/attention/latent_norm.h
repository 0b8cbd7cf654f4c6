// RMSNorm of the latent between the down-projection and what reads it: the shared form with
// latent_norm (model/shape.h), where the normed latent is what attention, and the cache, hold.
//
//     latent_norm_forward(rows, latent, context);         latent = c,   c of rows = w c / rms(c)
//     latent_norm_apply(normed, latent, context);               what those columns were
//     latent_norm_backward(d_rows, grads, latent, context);
//
// Statistics and sums are float32 whatever the rows are. Private to model/attention.
#ifndef MHA2MLA_MODEL_ATTENTION_LATENT_NORM_H
#define MHA2MLA_MODEL_ATTENTION_LATENT_NORM_H

#include "model/attention/attention_context.h"

// Of the scratch, context->tiles, for N latents of R numbers, with or without backward. 0 for R 0.
int64_t latent_norm_scratch_bytes(int R, int64_t N, bool is_training);

// The latent's columns of rows in place, as they were -> latent.
void latent_norm_forward(Rows rows,   // [N, mla_projected_width()]
                         Rows latent, // [N, R] saved
                         const AttentionContext *context);

// The normed latent again.
void latent_norm_apply(Rows normed, // [N, R]
                       Rows latent, // [N, R] saved
                       const AttentionContext *context);

// The latent's columns of d_rows in place: from the gradient of the normed latent to that of the
// latent. grads->latent_norm, unless it is NULL, += or = (see context).
void latent_norm_backward(Rows d_rows, // [N, mla_projected_width()]
                          LayerParams *grads,
                          Rows latent, // [N, R] saved
                          const AttentionContext *context);

#endif
