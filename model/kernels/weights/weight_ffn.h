// The feed-forward block of a layer in bfloat16, with both matrices in panels (weight_matrix.h):
//
//     y += down (silu(gate x) * up x)
//
// Products of gate and up are computed 16 columns of each at a time and leave the caches as act
// alone, in bfloat16: half a number of memory traffic for each that goes into or comes out of the
// block, instead of six.
//
//     rmsnorm_forward(rows_bf16(normed, weight_panels_ld(D)), ...);
//     if (weight_ffn_fits(&layer->gate_up, &layer->down))
//         weight_ffn_forward(x, D, normed, &layer->gate_up, &layer->down, N, scratch);
//
// Results are those of weight_linear_forward(), swiglu_forward() (model/kernels/swiglu.h) and
// weight_linear_forward(), but for the last bit of act's exponential. The bits of a token's result
// do not depend on the tokens beside it nor on the number of threads.
#ifndef MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_FFN_H
#define MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_FFN_H

#include "model/kernels/weights/weight_matrix.h"

#include <stdbool.h>

// Matrices in panels, and gate and up begin with panels.
bool weight_ffn_fits(const WeightMatrix *gate_up, const WeightMatrix *down);

// Floats of scratch for at most N tokens. It begins at a multiple of 64 bytes.
int64_t weight_ffn_scratch_floats(int N, int F);

// Divided among OpenMP's threads; called outside of parallel regions.
void weight_ffn_forward(float *y, int ldy,           // [N, D]
                        const uint16_t *x,           // [N, weight_panels_ld(D)] (weight_panels.h)
                        const WeightMatrix *gate_up, // [2F, D]: gate | up
                        const WeightMatrix *down,    // [D, F]
                        int N, float *scratch);

#endif
