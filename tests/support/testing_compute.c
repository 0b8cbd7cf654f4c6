#include "tests/support/testing_compute.h"

#include "tests/support/testing.h"

#include <math.h>
#include <stdlib.h>

static TestingCompute ways[N_TESTING_WAYS] = {
    {"float32", COMPUTE_FLOAT32, BF16_EMULATED, DTYPE_F32},
    {"bfloat16 emulated", COMPUTE_BFLOAT16, BF16_EMULATED, DTYPE_F32},
    {"bfloat16 emulated, rows of bfloat16", COMPUTE_BFLOAT16, BF16_EMULATED, DTYPE_BF16},
    {"AVX512-BF16, rows of bfloat16", COMPUTE_BFLOAT16, BF16_AVX512, DTYPE_BF16},
    {"AMX", COMPUTE_BFLOAT16, BF16_AMX, DTYPE_F32},
    {"AMX, rows of bfloat16", COMPUTE_BFLOAT16, BF16_AMX, DTYPE_BF16},
};

void *testing_way(int i)
{
    return &ways[i];
}

const TestingCompute *testing_compute(void **state)
{
    const TestingCompute *way = *state;
    if (way->compute == COMPUTE_BFLOAT16) {
        if (!bf16_kernel_is_there(way->kernel))
            skip();
        bf16_force_kernel(way->kernel);
    }
    return way;
}

bool testing_next_kernel(int *kernel)
{
    static Bf16Kernel before;
    if (*kernel < 0)
        before = bf16_kernel();
    do
        ++*kernel;
    while (*kernel < N_BF16_KERNELS && !bf16_kernel_is_there((Bf16Kernel)*kernel));
    const bool is_one = *kernel < N_BF16_KERNELS;
    bf16_force_kernel(is_one ? (Bf16Kernel)*kernel : before);
    return is_one;
}

Rows testing_rows(const TestingCompute *way, const float *values, int64_t n, int width)
{
    const int64_t count = n * width;
    // Blocks of their exact size, so that the sanitizer sees an overrun.
    float *floats = malloc((size_t)(count > 0 ? count : 1) * sizeof *floats);
    assert_non_null(floats);
    for (int64_t i = 0; i < count; i++)
        floats[i] = values == NULL ? NAN : values[i];
    if (way->rows == DTYPE_F32)
        return rows_f32(floats, width);
    uint16_t *halves = malloc((size_t)(count > 0 ? count : 1) * sizeof *halves);
    assert_non_null(halves);
    dtype_narrow(halves, DTYPE_BF16, floats, count);
    free(floats);
    return rows_bf16(halves, width);
}

float *testing_rows_floats(Rows rows, int64_t n, int width)
{
    float *floats = malloc((size_t)(n * width + 1) * sizeof *floats);
    assert_non_null(floats);
    for (int64_t i = 0; i < n; i++)
        dtype_widen(floats + i * width, rows_at(rows, i, 0).data, rows.dtype, width);
    return floats;
}

void testing_round(const TestingCompute *way, float *values, int64_t count)
{
    if (way->compute == COMPUTE_FLOAT32)
        return;
    uint16_t *halves = malloc((size_t)(count + 1) * sizeof *halves);
    assert_non_null(halves);
    dtype_narrow(halves, DTYPE_BF16, values, count);
    dtype_widen(values, halves, DTYPE_BF16, count);
    free(halves);
}

void testing_assert_floats(const TestingCompute *way, const char *what, const float *got,
                           const float *expected, int64_t count, double float32, double bfloat16)
{
    const double allowed = way->compute == COMPUTE_FLOAT32 ? float32 : bfloat16,
                 error = testing_error(got, expected, count, 1e-6);
    if (!(error <= allowed))
        fail_msg("%s by %s: relative error %.3g, allowed %.3g", what, way->name, error, allowed);
}

void testing_assert_rows(const TestingCompute *way, const char *what, Rows rows,
                         const float *expected, int64_t n, int width, double float32,
                         double bfloat16)
{
    float *floats = testing_rows_floats(rows, n, width);
    testing_assert_floats(way, what, floats, expected, n * width, float32, bfloat16);
    free(floats);
}
