// Eigenvectors of the largest eigenvalues of a symmetric tridiagonal matrix, in double.
//
//     TridiagonalRoom room;
//     tridiagonal_place(&room, &arena, n, k);      // measures; then again to place (base/arena.h)
//     TRY(tridiagonal_largest(vectors, ld, values, diagonal, below, n, k, &room));
//
// Orthonormal to float's precision or better. Nothing is owned beyond a call.
#ifndef MHA2MLA_MODEL_CONVERT_TRIDIAGONAL_H
#define MHA2MLA_MODEL_CONVERT_TRIDIAGONAL_H

#include "base/arena.h"

#include <lapacke.h>

// Working memory, placed in an arena.
typedef struct TridiagonalRoom {
    double *squares;   // [n]
    double *scratch;   // of each thread; or LAPACK's vectors [k, n]
    double *work;      // [18 n]
    lapack_int *iwork; // [10 n] and the support of k vectors
    int n_threads;
} TridiagonalRoom;

void tridiagonal_place(TridiagonalRoom *room, Arena *arena, int n, int k);

// vectors [n, ld]: one eigenvector per column and zeros beyond k; values [n]: first the k
// eigenvalues, ascending, the last the largest; the rest is room. diagonal [n] and below [n], of
// which the last is room, are destroyed. FAILED if LAPACK does not converge.
Status tridiagonal_largest(float *vectors, int ld, double *values, double *diagonal, double *below,
                           int n, int k, TridiagonalRoom *room);

#endif
