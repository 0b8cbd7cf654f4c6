// The check that all weights pass, wherever they come from: no NaN, no infinity.
#ifndef MHA2MLA_MODEL_KERNELS_FINITE_H
#define MHA2MLA_MODEL_KERNELS_FINITE_H

#include <stdint.h>

// Index of the first number that is NaN or infinite; `count` if all are finite.
int64_t finite_find_nonfinite(const float *values, int64_t count);

#endif
