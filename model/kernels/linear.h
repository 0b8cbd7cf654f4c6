// Products with weight matrices, by model/kernels/gemm.h. Weights are float32 [n_out, n_in] as
// Hugging Face stores them; rows of activations may be bfloat16, and wider than what is multiplied.
//
//     linear_forward(COMPUTE_BFLOAT16, rows_bf16(qkv, width), rows_bf16(normed, D), w, N, D, width,
//                    false);
#ifndef MHA2MLA_MODEL_KERNELS_LINEAR_H
#define MHA2MLA_MODEL_KERNELS_LINEAR_H

#include "model/kernels/compute.h"
#include "model/kernels/rows.h"

#include <stdbool.h>

// y = x w^T, or y += x w^T if `add` (float32 results only, as in all three).
void linear_forward(ComputeType type,
                    Rows y,         // [N, n_out]
                    Rows x,         // [N, n_in], read
                    const float *w, // [n_out, n_in]
                    int N, int n_in, int n_out, bool add);

// Gradient of the input: dx = dy w, or dx += dy w if `add` (several products of one input).
void linear_backward_input(ComputeType type,
                           Rows dx,        // [N, n_in]
                           Rows dy,        // [N, n_out], read
                           const float *w, // [n_out, n_in]
                           int N, int n_in, int n_out, bool add);

// Gradient of the weight: dw = dy^T x, or dw += dy^T x if `add`. dw NULL, of a frozen weight:
// nothing.
void linear_backward_weight(ComputeType type,
                            float *dw, // [n_out, n_in]
                            Rows dy,   // [N, n_out], read
                            Rows x,    // [N, n_in], read
                            int N, int n_in, int n_out, bool add);

#endif
