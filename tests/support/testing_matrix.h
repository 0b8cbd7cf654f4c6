// Matrices of random numbers, in float32 or bfloat16, and what they are in double.
//
//     Rows x = testing_matrix(N, D + 3, true, 1);
//     expected += testing_matrix_value(x, n, d) * testing_matrix_rounded(w, d, j);
//     free(x.data);
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_MATRIX_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_MATRIX_H

#include "model/kernels/rows.h"

#include <stdbool.h>
#include <stdint.h>

// [rows, ld] from Normal(0, 1); in bfloat16 the same numbers, rounded. The caller frees data.
Rows testing_matrix(int rows, int ld, bool is_bf16, uint64_t seed);

double testing_matrix_value(Rows rows, int64_t row, int64_t column);

// The same rounded to bfloat16.
double testing_matrix_rounded(Rows rows, int64_t row, int64_t column);

#endif
