// Products with weights that stay as they lie in a file, in float32, float16 or bfloat16, and are
// widened in registers: inference reads every weight once per step, so half the bytes are nearly
// twice the tokens per second. Activations and sums are float32.
//
//     WeightMatrix gate_up = {values, DTYPE_BF16, 2 * F, D, layout}; // weight_matrix.h
//     float *scratch = arena_floats(&arena, weight_linear_scratch_floats(max_N, 2 * F, D));
//     weight_linear_forward(y, 2 * F, x, D, &gate_up, N, false, scratch);
//
// bfloat16 weights are multiplied by AMX's tiles where the CPU has them. Else a product of up to
// WEIGHT_DIRECT_TOKENS tokens reads the weights in place, and one of more widens blocks of rows
// into the scratch for model/kernels/gemm.h. With tiles, or up to that number, the bits of a
// token's result do not depend on the tokens beside it; they never depend on the number of threads.
//
// A matrix in panels has its products in bfloat16: activations are rounded to bfloat16, sums are
// float32. These bits do not depend on the tokens beside it either.
#ifndef MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_LINEAR_H
#define MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_LINEAR_H

#include "model/kernels/weights/weight_matrix.h"

#include <stdbool.h>

enum { WEIGHT_DIRECT_TOKENS = 64 };

// Floats of scratch for products of at most N tokens, whatever the dtype. It begins at a multiple
// of 64 bytes.
int64_t weight_linear_scratch_floats(int N, int n_out, int n_in);

// y = x w^T, or y += x w^T if `add`. Divided among OpenMP's threads; called outside of parallel
// regions.
void weight_linear_forward(float *y, int ldy,       // [N, n_out]
                           const float *x, int ldx, // [N, n_in]
                           const WeightMatrix *w, int N, bool add, float *scratch);

// The same, and a token's result has the same bits whatever tokens are beside it. Slower for a few
// tokens where there are no tiles. Scratch is that of more than WEIGHT_DIRECT_TOKENS tokens.
void weight_linear_forward_reproducible(float *y, int ldy, const float *x, int ldx,
                                        const WeightMatrix *w, int N, bool add, float *scratch);

// weight_linear_forward() on the calling thread alone, for use inside a parallel region. The
// matrix is not blocked.
void weight_product(float *y, int ldy,       // [N, n_out]
                    const float *x, int ldx, // [N, n_in]
                    const WeightMatrix *w, int N, bool add);

// y = x w, or y += x w if `add`, on the calling thread alone. The matrix is not blocked.
void weight_product_transposed(float *y, int ldy,       // [N, n_in]
                               const float *x, int ldx, // [N, n_out]
                               const WeightMatrix *w, int N, bool add);

#endif
