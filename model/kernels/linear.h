// Products with weight matrices, by model/kernels/gemm.h. Weights are [n_out, n_in] as Hugging Face
// stores them; rows of activations may be wider than what is multiplied (ld: floats from one row to
// the next).
#ifndef MHA2MLA_MODEL_KERNELS_LINEAR_H
#define MHA2MLA_MODEL_KERNELS_LINEAR_H

#include <stdbool.h>

// y = x w^T, or y += x w^T if `add`.
void linear_forward(float *y, int ldy,       // [N, n_out]
                    const float *x, int ldx, // [N, n_in]
                    const float *w,          // [n_out, n_in]
                    int N, int n_in, int n_out, bool add);

// Gradient of the input: dx = dy w, or dx += dy w if `add` (several products of one input).
void linear_backward_input(float *dx, int lddx,       // [N, n_in]
                           const float *dy, int lddy, // [N, n_out]
                           const float *w,            // [n_out, n_in]
                           int N, int n_in, int n_out, bool add);

// Gradient of the weight: dw = dy^T x, or dw += dy^T x if `add`.
void linear_backward_weight(float *dw,                 // [n_out, n_in]
                            const float *dy, int lddy, // [N, n_out]
                            const float *x, int ldx,   // [N, n_in]
                            int N, int n_in, int n_out, bool add);

#endif
