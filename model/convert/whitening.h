// Low-rank factors in the norm of a second moment C = E x x^T: up down nearest to W where it
// matters, tr (W - up down) C (W - up down)^T, which SVD-LLM and CARE (arXiv 2603.17946) call
// whitening: the SVD of W C^1/2, with a Cholesky factor for the root.
//
//     TRY(whitening_factorize(up, down, w, covariance, m, D, R));
//
// Moments are shrunk towards a multiple of the identity first, so that directions that calibration
// never showed still count a little and any moment has a Cholesky factor.
#ifndef MHA2MLA_MODEL_CONVERT_WHITENING_H
#define MHA2MLA_MODEL_CONVERT_WHITENING_H

#include "base/arena.h"

// c [D, D] /= its mean diagonal, and 1 % is added to the diagonal. A moment of nothing becomes the
// identity. Returns the mean diagonal, 1 for nothing.
double whitening_shrink(double *c, int D);

// up [m, R] and down [R, D] with up down nearest to w [m, D] in the norm of the covariance [D, D];
// each has the root of the singular values. The errors of factorize().
Status whitening_factorize(float *up, float *down, const float *w, const double *covariance, int m,
                           int D, int R);

// up [n, R] with up down nearest to further rows w [n, D] for a down-projection [R, D] that is
// given, in the norm of the covariance, or with NULL in the Frobenius norm. Zeros where down is not
// of full rank. FAILED if memory is short.
Status whitening_fit(float *up, const float *w, const float *down, const double *covariance, int n,
                     int D, int R);

// Root mean square of w x over the m rows of w [m, D], for x with this second moment.
Status whitening_rms(double *out, const float *w, const double *covariance, int m, int D);

// Add to a measuring arena what these work in.
void whitening_measure(Arena *arena, int m, int D, int R);
void whitening_rms_measure(Arena *arena, int D);
void whitening_fit_measure(Arena *arena, int n, int D, int R);

#endif
