// model/attention/attention_latent.h where products compute in bfloat16. Private to
// model/attention.
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_LATENT_BF16_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_LATENT_BF16_H

#include "model/attention/attention_latent.h"

int64_t attention_latent_bf16_scratch_bytes(const LatentDims *dims, int n_threads,
                                            bool is_training);

void attention_latent_bf16_forward(const LatentArrays *arrays, void *scratch,
                                   const LatentDims *dims);
void attention_latent_bf16_backward(const LatentArrays *arrays, void *scratch,
                                    const LatentDims *dims);

#endif
