// Products of many tokens with bfloat16 weights by AMX's tiles, as exact as weight_amx.h and faster
// from 16 tokens on: the three parts of a float are columns of three tiles, whose products are
// added in the same sums, so that a tile of weights is loaded once for all three and nothing is
// added afterwards. Of a few tokens most columns would be empty.
//
//     #pragma omp parallel
//     {
//         weight_amx_many_pack(packed, x, ldx, N, n_in);
//         weight_amx_start(); // weight_amx.h
//         weight_amx_many_dots(&operands, packed, first, count); // each its outputs
//         weight_amx_end();
//     }
//
// The bits of a token's result do not depend on the tokens beside it.
#ifndef MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_AMX_MANY_H
#define MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_AMX_MANY_H

#include "model/kernels/weights/weight_kernel.h"

// Bytes of `packed`, which begins at a multiple of 64.
int64_t weight_amx_many_packed_bytes(int N, int n_in);

// Inside of a parallel region its threads share the work; all return when it is done.
void weight_amx_many_pack(uint16_t *packed, const float *x, int ldx, // [N, n_in]
                          int N, int n_in);

// As weight_amx_dots().
void weight_amx_many_dots(const WeightOperands *operands,
                          const uint16_t *packed, // of operands->x
                          int first, int count);

#endif
