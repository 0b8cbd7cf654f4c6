// A matrix of weights as inference holds it: in float32, float16 or bfloat16, as rows or in blocks.
//
//     WeightMatrix w = {values, DTYPE_BF16, n_out, n_in, weight_prefers_blocks(DTYPE_BF16, n_in)};
//     for (int row = 0; row < n_out; row++)
//         weight_row_write(values, &w, row, floats + row * n_in);
//
// AMX's kernels take 32 rows at a time, 32 columns per step. As rows these are 32 streams of 64
// bytes each; in blocks they are one, which memory delivers faster (bench/results.md):
//
//     rows:   [n_out][n_in]
//     blocks: [n_out / 32][n_in / 32][32 rows][32 columns]; the last block has fewer rows where
//             n_out is not a multiple of 32
//
// Both take the same bytes and give products the same bits.
#ifndef MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_MATRIX_H
#define MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_MATRIX_H

#include "model/kernels/dtype.h"

#include <stdbool.h>

enum { WEIGHT_BLOCK = 32 }; // rows and columns

typedef struct WeightMatrix {
    const void *values; // borrowed: [n_out, n_in] without gaps
    DType dtype;        // F32, F16 or BF16
    int n_out, n_in;
    bool is_blocked; // bfloat16 for AMX; n_in is a multiple of WEIGHT_BLOCK
} WeightMatrix;

// Whether weight_linear_forward() reads blocks of such a matrix faster than rows on this machine;
// where it does not, it takes rows alone.
bool weight_prefers_blocks(DType dtype, int n_in);

// Rows [first, first + count), a view; of a blocked matrix whole blocks.
WeightMatrix weight_rows(const WeightMatrix *w, int first, int count);

// One row as floats: the embedding of a token.
void weight_row_read(float *out, // [n_in]
                     const WeightMatrix *w, int row);

// One row from floats, rounded to the matrix's dtype, into the memory that w->values names.
void weight_row_write(void *values, const WeightMatrix *w, int row,
                      const float *from); // [n_in]

#endif
