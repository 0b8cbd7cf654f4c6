// The ways in which products compute, for tests whose body takes one of them: the type, the kernel
// of bfloat16, and the type of the rows of activations.
//
//     static void test_forward(void **state)
//     {
//         const TestingCompute *way = testing_compute(state);   // skips where the CPU has not it
//         Rows x = testing_rows(way, values, n, width);
//     }
//     cmocka_unit_test_prestate(test_forward, testing_way(i))   // i < N_TESTING_WAYS
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_COMPUTE_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_COMPUTE_H

#include "model/kernels/compute.h"
#include "model/kernels/rows.h"

#include <stdbool.h>

typedef struct TestingCompute {
    const char *name;
    ComputeType compute;
    Bf16Kernel kernel; // not in float32
    DType rows;
} TestingCompute;

enum { N_TESTING_WAYS = 6 }; // the first is float32

void *testing_way(int i);

// Forces the kernel.
const TestingCompute *testing_compute(void **state);

// For loops over the kernels of bfloat16 that this CPU has, with each forced in its turn; the one
// that was there before is back at the end. *kernel starts at -1.
bool testing_next_kernel(int *kernel);

// New rows of the way's type that hold `values` [n, width], NaNs if NULL.
Rows testing_rows(const TestingCompute *way, const float *values, int64_t n, int width);

// New floats [n, width].
float *testing_rows_floats(Rows rows, int64_t n, int width);

// What products read of values: in bfloat16 they are rounded, in place.
void testing_round(const TestingCompute *way, float *values, int64_t count);

// testing_assert_close() with the tolerance of the way's type.
void testing_assert_rows(const TestingCompute *way, const char *what, Rows rows,
                         const float *expected, int64_t n, int width, double float32,
                         double bfloat16);
void testing_assert_floats(const TestingCompute *way, const char *what, const float *got,
                           const float *expected, int64_t count, double float32, double bfloat16);

#endif
