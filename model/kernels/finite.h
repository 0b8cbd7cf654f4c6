// The one question asked of all weights, wherever they come from.
#ifndef MHA2MLA_MODEL_KERNELS_FINITE_H
#define MHA2MLA_MODEL_KERNELS_FINITE_H

#include <stdint.h>

// Index of the first of the numbers that is NaN or infinite, or count.
int64_t finite_count(const float *values, int64_t count);

#endif
