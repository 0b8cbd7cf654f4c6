// Refits a layer's output projection to a converted attention: the W_o whose product with the
// heads' new outputs O is nearest to the original attention's output Y = O_0 W_o,0^T, held towards
// the old one,
//
//     W_o^T = (O^T O + lambda 1)^-1 (O^T O_0 + lambda 1) W_o,0^T,   lambda = 1e-3 mean diagonal,
//
// over calibration tokens. O^T O is of low rank where the latent is, hence towards the old W_o and
// not towards zero.
#ifndef MHA2MLA_MODEL_CONVERT_REFIT_RIDGE_H
#define MHA2MLA_MODEL_CONVERT_REFIT_RIDGE_H

#include "base/status.h"

#include <stdint.h>

// o [D, Q] in place. gram [Q, Q] = O^T O (whole) and cross [Q, Q] = O^T O_0 are used up. Without
// any output o stays as it is. FAILED if LAPACK does not succeed or memory is short.
Status ridge_refit(float *o, double *gram, double *cross, int D, int Q);

// The same towards any outputs Y [T, D], and held with weight lambda towards the o that there is:
//
//     W_o^T = (O^T O + lambda 1)^-1 (O^T Y + lambda W_o^T),   lambda times mean diagonal,
//
// the mean over columns of O that are not zero. gram [Q, Q] is used up, moment [Q, D] = O^T Y is
// not. excess: |O W_o^T - Y|^2 - |Y|^2 before and after.
Status ridge_fit(float *o, double *gram, const double *moment, double lambda, int D, int Q,
                 double excess[2]);

// Bytes that either allocates.
int64_t ridge_bytes(int D, int Q);

#endif
