// Products in bfloat16 with a matrix in panels (weight_matrix.h): activations are rounded to
// bfloat16 once, sums are float32 (model/kernels/tile_bf16.h).
//
//     #pragma omp parallel
//     {
//         weight_panels_round(rounded, x, ldx, N, n_in);
//         tile_bf16_start();
//         weight_panels_dots(&operands, rounded, first, count); // each its outputs
//         tile_bf16_end();
//     }
//
// Rows that are bfloat16 already, weight_panels_ld() apart and with zeros up to the end of a step,
// need no rounding:
//
//     rmsnorm_forward(rows_bf16(normed, weight_panels_ld(D)), ...);
//     weight_panels_forward(qkv, ld, normed, &layer->qkv, N);
//
// The bits of a token's result do not depend on the tokens beside it.
#ifndef MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_PANELS_H
#define MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_PANELS_H

#include "model/kernels/weights/weight_kernel.h"

// Numbers from one token of `rounded` to the next.
int weight_panels_ld(int n_in);

// Outputs of an item of work, whole panels, for N tokens.
int weight_panels_item(int n_out, int N);

// Bytes of `rounded`, which begins at a multiple of 64.
int64_t weight_panels_rounded_bytes(int N, int n_in);

// Inside of a parallel region its threads share the work; all return when it is done.
void weight_panels_round(uint16_t *rounded, const float *x, int ldx, // [N, n_in]
                         int N, int n_in);

// Outputs [first, first + count) of y = x w^T, or y += x w^T, on the calling thread,
// between tile_bf16_start() and tile_bf16_end(). `first` is a multiple of WEIGHT_PANEL.
void weight_panels_dots(const WeightOperands *operands,
                        const uint16_t *rounded, // of operands->x
                        int first, int count);

// y = x w^T of rows that are bfloat16. Divided among OpenMP's threads; called outside of parallel
// regions.
void weight_panels_forward(float *y, int ldy,    // [N, n_out]
                           const uint16_t *rows, // [N, weight_panels_ld(n_in)]
                           const WeightMatrix *w, int N);

#endif
