// The product of a single token with a matrix in blocks (weight_matrix.h): the step of decoding one
// sequence, limited by memory. Results have the bits of weight_amx_dots().
//
//     weight_amx_one_pack(packed, x, n_in);
//     #pragma omp parallel
//     {
//         weight_amx_one_start();
//         weight_amx_one_dots(&operands, packed, block); // each its blocks
//         weight_amx_end();
//     }
#ifndef MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_AMX_ONE_H
#define MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_AMX_ONE_H

#include "model/kernels/weights/weight_kernel.h"

// `packed` has weight_amx_packed_bytes(1, n_in), more than it takes.
void weight_amx_one_pack(uint16_t *packed, const float *x, // [n_in]
                         int n_in);

// The calling thread's tiles are for weight_amx_one_dots() until weight_amx_end().
void weight_amx_one_start(void);

// The outputs of a block of WEIGHT_BLOCK rows, on the calling thread.
void weight_amx_one_dots(const WeightOperands *operands, const uint16_t *packed, int block);

#endif
