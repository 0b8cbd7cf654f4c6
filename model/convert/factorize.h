// The rank-R matrix nearest to a matrix, as two factors.
//
//     TRY(factorize(up, down, a, m, n, R));      // up [m, R], down [R, n]: up down ~ a [m, n]
//
// Only the directions asked for are computed, with LAPACK. Large matrices go through single
// precision first: its vectors are corrected in double and their error is bounded; where that is
// not small, and for small matrices, all is done in double. Nothing is owned beyond a call.
#ifndef MHA2MLA_MODEL_CONVERT_FACTORIZE_H
#define MHA2MLA_MODEL_CONVERT_FACTORIZE_H

#include "base/arena.h"

// Rank-R factors of A [m, n], R in 1..min(m, n), by SVD: up [m, R] and down [R, n] with
// up = U S^1/2, down = S^1/2 V^T, largest singular value first. up down is the rank-R matrix
// nearest to A; directions A does not have (rank below R) are zero in both factors up to rounding.
// BAD_INPUT if A is not finite; FAILED if LAPACK does not converge or memory is short.
Status factorize(float *up, float *down, const float *a, int m, int n, int R);

// Adds to a measuring arena what factorize() works in.
void factorize_measure(Arena *arena, int m, int n, int R);

#endif
