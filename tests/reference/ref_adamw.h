// AdamW in plain double, as torch.optim.AdamW's documentation writes it: the oracle of
// optim/adamw.c. Same arguments, doubles for floats.
//
//     ref_adamw_update(params, m, v, grads, n, &rule, lr, scale, t);
#ifndef MHA2MLA_TESTS_REFERENCE_REF_ADAMW_H
#define MHA2MLA_TESTS_REFERENCE_REF_ADAMW_H

#include "optim/adamw.h"

void ref_adamw_update(double *params, double *m, double *v, const double *grads, int64_t count,
                      const AdamW *rule, double lr, double grad_scale, int t);

#endif
