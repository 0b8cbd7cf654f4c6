// Products of small matrices that lie in cache: attention's tiles. OpenBLAS packs its operands
// anew for every product, which at these sizes costs a quarter of the time; here b is read as it
// lies, so its columns come padded to whole vectors.
//
//     tile_multiply(scores, KEYS, q, width, k_columns, KEYS, rows, keys, E, false);
//
// Every element is one sum in the order of k, whatever m and n. A version for AVX-512, one for
// AVX2 and a plain one; the machine decides. Single-threaded.
#ifndef MHA2MLA_MODEL_TILE_H
#define MHA2MLA_MODEL_TILE_H

#include <stdbool.h>

enum { TILE_WIDTH = 32 }; // floats; n is rounded up to a multiple of it, so b and c have that room

static inline int tile_padded(int n)
{
    return (n + TILE_WIDTH - 1) / TILE_WIDTH * TILE_WIDTH;
}

// c = a b, or c += a b if `add`.
void tile_multiply(float *c, int ldc,       // [m, n]
                   const float *a, int lda, // [m, k]
                   const float *b, int ldb, // [k, n]
                   int m, int n, int k, bool add);

// c = a^T b, or c += a^T b if `add`.
void tile_multiply_transposed(float *c, int ldc,       // [m, n]
                              const float *a, int lda, // [k, m]
                              const float *b, int ldb, // [k, n]
                              int m, int n, int k, bool add);

#endif
