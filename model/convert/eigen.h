// Eigenvectors of the largest eigenvalues of a large symmetric matrix, in single precision, at the
// speed of matrix products.
//
//     EigenRoom room;
//     eigen_place(&room, &arena, n, k);            // measures; then again to place (base/arena.h)
//     TRY(eigen_largest(vectors, gram, n, k, &room));
//
// A direct method, stable whatever the spectrum: the vectors are those of a matrix that differs
// from the given one by a few float epsilons of its norm. They are orthonormal to the same
// precision. What needs more takes them as a start (model/convert/factorize.c).
#ifndef MHA2MLA_MODEL_CONVERT_EIGEN_H
#define MHA2MLA_MODEL_CONVERT_EIGEN_H

#include "base/arena.h"
#include "model/convert/chase.h"
#include "model/convert/tridiagonal.h"

#include <lapacke.h>

enum { EIGEN_LEAST = 256 }; // smaller matrices are no work for it

// Working memory, placed in an arena.
typedef struct EigenRoom {
    Chase chase;
    float *panel_tau;                  // [n] of the reflectors that made the band
    double *diagonal, *below, *values; // [n], of the tridiagonal matrix
    TridiagonalRoom tridiagonal;
    float *block; // groups of reflectors
    float *work;  // [n_work]
    int64_t n_work;
} EigenRoom;

void eigen_place(EigenRoom *room, Arena *arena, int n, int k);

// vectors [n, tile_padded(k)]: one eigenvector per column, ascending eigenvalues, the last of the k
// that of the largest; zeros beyond.
// matrix [n, n], symmetric, of which the triangle on and above the diagonal is read; destroyed.
// n >= EIGEN_LEAST, 1 <= k <= n. FAILED if LAPACK does not converge.
Status eigen_largest(float *vectors, float *matrix, int n, int k, EigenRoom *room);

#endif
