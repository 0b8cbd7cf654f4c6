// Products with bfloat16 weights by AMX's tiles, exact in the weights and as accurate as float32 in
// the activations: a float is the sum of three bfloat16 numbers (3 x 8 bits of its 24-bit
// significand), so three columns of a tile hold a token, and their sums are added at the end.
//
//     #pragma omp parallel
//     {
//         weight_amx_pack(packed, x, ldx, N, n_in);
//         weight_amx_start();
//         weight_amx_dots(&operands, packed, first, count); // each its outputs
//         weight_amx_end();
//     }
//
// The bits of a token's result do not depend on the tokens beside it.
#ifndef MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_AMX_H
#define MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_AMX_H

#include "model/kernels/weights/weight_kernel.h"

// Whether the CPU has tiles of bfloat16 and the kernel lets this process use them.
bool weight_amx_works(void);

// Bytes of `packed`, which begins at a multiple of 64.
int64_t weight_amx_packed_bytes(int N, int n_in);

// Inside of a parallel region its threads share the work; all return when it is done.
void weight_amx_pack(uint16_t *packed, const float *x, int ldx, // [N, n_in]
                     int N, int n_in);

// The calling thread's tiles are for weight_amx_dots() in between.
void weight_amx_start(void);
void weight_amx_end(void);

// Outputs [first, first + count) of y = x w^T, or y += x w^T, on the calling thread. w: bfloat16;
// of blocks, first and count are multiples of WEIGHT_BLOCK, but for the end of the matrix.
void weight_amx_dots(const WeightOperands *operands,
                     const uint16_t *packed, // of operands->x
                     int first, int count);

#endif
