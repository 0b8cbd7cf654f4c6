// The type that matrix products compute in, and what runs those of bfloat16.
//
//     if (type == COMPUTE_BFLOAT16 && bf16_kernel() == BF16_EMULATED)
//         ... slower than float32: for tests, and to reproduce numbers elsewhere
//
// In bfloat16 a product rounds its operands to bfloat16, to nearest even, and adds in float32: by
// AMX's tiles, by AVX512-BF16's pairs, or by float32 instructions. The three round alike and differ
// in the order of their sums, and in that the first two take denormals for zero.
#ifndef MHA2MLA_MODEL_KERNELS_COMPUTE_H
#define MHA2MLA_MODEL_KERNELS_COMPUTE_H

#include "model/kernels/rows.h"

#include <stdbool.h>

typedef enum ComputeType { COMPUTE_FLOAT32, COMPUTE_BFLOAT16, N_COMPUTE_TYPES } ComputeType;

// By their values, closed by NULL: for tables of keys and options.
extern const char *const compute_names[];

// "float32", "bfloat16".
const char *compute_name(ComputeType type);

// Rows of activations [.., width] without memory. Products round their operands to bfloat16 anyhow:
// what they read and write is kept so.
static inline Rows compute_rows(ComputeType type, int width)
{
    return type == COMPUTE_BFLOAT16 ? rows_bf16(NULL, rows_bf16_step(width))
                                    : rows_f32(NULL, width);
}

typedef enum Bf16Kernel { BF16_EMULATED, BF16_AVX512, BF16_AMX, N_BF16_KERNELS } Bf16Kernel;

// What products run by: the best that this machine has, or the one that was forced.
Bf16Kernel bf16_kernel(void);

// Whether the CPU has the instructions and the operating system lets this process use them.
bool bf16_kernel_is_there(Bf16Kernel kernel);

// For all products from now on; it must be there. Not while a product runs.
void bf16_force_kernel(Bf16Kernel kernel);

// "AMX", "AVX512-BF16", "emulated by AVX-512", "emulated by AVX2" or "emulated".
const char *bf16_kernel_name(void);

#endif
