// The inner kernels of model/kernels/weights/weight_linear.h for one instruction set each: products
// of a few rows of activations with weights that are widened to float in registers.
// Single-threaded.
//
//     const WeightKernel *kernel = weight_kernel(weight_target());
//     kernel->dots(&operands, first, count);
//
// Every element is one sum whose order depends on n_in (dots) or n_out (sums) and the instruction
// set alone: a token's result has the same bits whatever tokens are beside it.
#ifndef MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_KERNEL_H
#define MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_KERNEL_H

#include "model/kernels/weights/weight_matrix.h"

#include <stdbool.h>

// What the rows of a product share. ld: floats from one row to the next.
typedef struct WeightOperands {
    float *y;
    const float *x;
    const void *w; // [n_out, n_in] of dtype, rows without gaps or in blocks (weight_matrix.h)
    DType dtype;   // F32, F16 or BF16
    int ldy, ldx, n_out, n_in, N;
    bool add;
    WeightLayout layout;
} WeightOperands;

typedef enum WeightTarget {
    WEIGHT_NARROW, // one number at a time
    WEIGHT_PLAIN,
    WEIGHT_AVX2,
    WEIGHT_AVX512,
    N_WEIGHT_TARGETS
} WeightTarget;

typedef struct WeightKernel {
    const char *name;
    int lanes; // floats of a vector: the least n_in
    // y = x w^T of all N tokens, outputs [first, first + count): x [N, n_in], y [N, n_out].
    void (*dots)(const WeightOperands *operands, int first, int count);
    // y = x w of all N tokens: x [N, n_out], y [N, n_in].
    void (*sums)(const WeightOperands *operands);
} WeightKernel;

// NULL if this machine cannot run it.
const WeightKernel *weight_kernel(WeightTarget target);

// The best this machine can run for matrices of n_in columns.
WeightTarget weight_target(int n_in);

#endif
