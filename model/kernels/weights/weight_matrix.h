// A matrix of weights as inference holds it: in float32, float16 or bfloat16, as rows, in blocks or
// in panels.
//
//     WeightMatrix w = {NULL, DTYPE_BF16, n_out, n_in, weight_layout_best(DTYPE_BF16, n_in)};
//     void *values = arena_place(&arena, weight_matrix_bytes(&w), 1);
//     w.values = values;
//     weight_rows_write(values, &w, 0, n_out, floats);
//
// AMX's kernels take 32 rows at a time, 32 columns per step. As rows these are 32 streams of 64
// bytes each; in blocks they are one, which memory delivers faster (bench/results.md):
//
//     rows:   [n_out][n_in]
//     blocks: [n_out / 32][n_in / 32][32 rows][32 columns]; the last block has fewer rows where
//             n_out is not a multiple of 32
//
// Both take the same bytes and give products the same bits.
//
// Panels are for products in bfloat16 (model/kernels/tile_bf16.h), which round activations to
// bfloat16: 16 rows lie side by side as the instructions want their second operand, pairs of
// columns together. What fills the last panel, and the last step of 32 columns, is 0.
//
//     panels: [ceil(n_out / 16)][ceil(n_in / 32) 16 pairs of columns][16 rows][2 columns]
#ifndef MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_MATRIX_H
#define MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_MATRIX_H

#include "base/intmath.h"
#include "model/kernels/dtype.h"

enum {
    WEIGHT_BLOCK = 32,      // rows and columns
    WEIGHT_PANEL = 16,      // rows
    WEIGHT_PANEL_STEP = 32, // columns, whose multiple a panel has
};

typedef enum WeightLayout { WEIGHT_ROWS, WEIGHT_BLOCKS, WEIGHT_PANELS } WeightLayout;

typedef struct WeightMatrix {
    const void *values; // borrowed: [n_out, n_in] without gaps; panels: from a multiple of 64
                        // bytes on
    DType dtype;        // F32, F16 or BF16; of panels BF16
    int n_out, n_in;
    WeightLayout layout; // blocks: bfloat16 for AMX; n_in is a multiple of WEIGHT_BLOCK
} WeightMatrix;

// Blocks where weight_linear_forward() reads them faster than rows on this machine; where it does
// not, it takes no blocks. For float32 activations.
WeightLayout weight_layout_best(DType dtype, int n_in);

// Of the values, whatever w->values is.
int64_t weight_matrix_bytes(const WeightMatrix *w);

// Numbers from a panel to the next.
static inline int64_t weight_panel_numbers(int n_in)
{
    return (int64_t)round_up(n_in, WEIGHT_PANEL_STEP) * WEIGHT_PANEL;
}

// Rows [first, first + count), a view; of a matrix in blocks or panels whole ones.
WeightMatrix weight_rows(const WeightMatrix *w, int first, int count);

// One row as floats: the embedding of a token.
void weight_row_read(float *out, // [n_in]
                     const WeightMatrix *w, int row);

// Rows [first, first + count) from floats, rounded to the matrix's dtype, into the memory that
// w->values names. Parallel inside. Rows of panels are written in ascending order: the last row's
// write fills the last panel.
void weight_rows_write(void *values, const WeightMatrix *w, int first, int count,
                       const float *from); // [count, n_in]

#endif
