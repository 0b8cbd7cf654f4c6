// Products of matrices that lie in cache: attention's tiles, and the blocks that
// model/kernels/gemm.h cuts large products into. b is read in place, so its columns are padded to
// whole vectors.
//
//     tile_multiply(scores, KEYS, q, width, k_columns, KEYS, rows, keys, E, false);
//
// Every element is one sum in the order of k, whatever m and n. A version for AVX-512, one for
// AVX2 and a plain one; the machine decides. Single-threaded.
#ifndef MHA2MLA_MODEL_KERNELS_TILE_H
#define MHA2MLA_MODEL_KERNELS_TILE_H

#include "base/intmath.h"

#include <stdbool.h>
#include <stdint.h>

// Floats. n is rounded up to a multiple of it: rows of b and c must be that long.
enum { TILE_WIDTH = 16 };

static inline int tile_padded(int n)
{
    return round_up(n, TILE_WIDTH);
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

// Element (i, p) of a lies at a[i * row_step + p * k_step], one of the steps is 1.
typedef struct TileOperands {
    float *c;                 // [rows, columns]
    const float *a, *b;       // b [k, columns]
    int ldc, ldb, k;          // ld: floats from one row to the next
    int64_t row_step, k_step; // of a, in floats
    bool add;
} TileOperands;

typedef enum TileTarget { TILE_PLAIN, TILE_AVX2, TILE_AVX512, N_TILE_TARGETS } TileTarget;

// The inner kernel of products for one instruction set.
typedef struct TileKernel {
    const char *name;
    int lanes;      // floats of a vector
    int columns;    // of the widest block
    int heights[5]; // rows that fill the registers, by the number of vectors in a block's columns
    // One block: any rows, at most `columns` columns in whole vectors.
    void (*block)(const TileOperands *operands, int rows, int columns);
} TileKernel;

// NULL if this machine cannot run it.
const TileKernel *tile_kernel(TileTarget target);

// The best this machine can run.
TileTarget tile_target(void);

#endif
