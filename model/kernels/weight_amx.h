// Products with bfloat16 weights by AMX's tiles, exact in the weights and as accurate as float32 in
// the activations: a float is the sum of three bfloat16 numbers (3 x 8 bits of its 24-bit
// significand), so three columns of a tile hold a token, and their sums are added at the end.
//
//     #pragma omp parallel
//     {
//         weight_amx_pack(packed, x, ldx, N, n_in);
//         weight_amx_dots(y, ldy, packed, w, N, n_in, first, count, add); // each its outputs
//     }
//
// The bits of a token's result do not depend on the tokens beside it.
#ifndef MHA2MLA_MODEL_KERNELS_WEIGHT_AMX_H
#define MHA2MLA_MODEL_KERNELS_WEIGHT_AMX_H

#include <stdbool.h>
#include <stdint.h>

// Whether the CPU has tiles of bfloat16 and the kernel lets this process use them.
bool weight_amx_works(void);

// Bytes of `packed`, which begins at a multiple of 64.
int64_t weight_amx_packed_bytes(int N, int n_in);

// Inside of a parallel region its threads share the work; all return when it is done.
void weight_amx_pack(uint16_t *packed, const float *x, int ldx, // [N, n_in]
                     int N, int n_in);

// Outputs [first, first + count) of y = x w^T, or y += x w^T if `add`, on the calling thread.
void weight_amx_dots(float *y, int ldy,      // [N, n_out]
                     const uint16_t *packed, // of x
                     const uint16_t *w,      // [n_out, n_in] bfloat16
                     int N, int n_in, int first, int count, bool add);

#endif
