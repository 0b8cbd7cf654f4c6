// AdamW (Loshchilov & Hutter, arXiv 1711.05101) with bias correction, as torch.optim.AdamW computes
// it, over a range of the flat parameter vector. Every parameter is decayed, norms included, as the
// reference's training code does.
//
//     adamw_update(params + first, m, v, grads + first, count, &rule, lr, grad_scale, t);
#ifndef MHA2MLA_OPTIM_ADAMW_H
#define MHA2MLA_OPTIM_ADAMW_H

#include <stdint.h>

typedef struct AdamW {
    double beta1, beta2, eps, weight_decay;
} AdamW;

// One step. `params`, `m` and `v` are updated in place; `grads` is read, multiplied by grad_scale
// (clipping). t >= 1 counts updates.
void adamw_update(float *restrict params,      // [count]
                  float *restrict m,           // [count] first moment
                  float *restrict v,           // [count] second moment
                  const float *restrict grads, // [count]
                  int64_t count, const AdamW *rule, double lr, double grad_scale, int t);

#endif
