#include "tests/support/testing_matrix.h"

#include "base/status.h"
#include "model/kernels/half.h"
#include "tests/reference/ref.h"

#include <stdlib.h>

Rows testing_matrix(int rows, int ld, bool is_bf16, uint64_t seed)
{
    const int64_t count = (int64_t)rows * ld;
    float *values = ref_random(count, 1.0, seed);
    if (!is_bf16)
        return rows_f32(values, ld);
    uint16_t *halves = malloc((size_t)count * sizeof *halves);
    CHECK(halves != NULL, "no memory for %d rows", rows);
    dtype_narrow(halves, DTYPE_BF16, values, count);
    free(values);
    return rows_bf16(halves, ld);
}

double testing_matrix_value(Rows rows, int64_t row, int64_t column)
{
    const Rows at = rows_at(rows, row, column);
    return at.dtype == DTYPE_BF16 ? (double)half_bf16_to_f32(*(const uint16_t *)at.data)
                                  : (double)*(const float *)at.data;
}

double testing_matrix_rounded(Rows rows, int64_t row, int64_t column)
{
    const float value = (float)testing_matrix_value(rows, row, column);
    return (double)half_bf16_to_f32(half_f32_to_bf16(value));
}
