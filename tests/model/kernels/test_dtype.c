// Conversion of arrays: the same numbers as model/kernels/half.h one by one, whatever the length.
#include "tests/support/testing.h"

#include "model/kernels/dtype.h"
#include "model/kernels/half.h"

#include <math.h>
#include <string.h>

enum { COUNT = 67 }; // no multiple of a vector

static void test_halves_widen_and_narrow_back(void **state)
{
    (void)state;
    uint16_t halves[COUNT], back[COUNT];
    float values[COUNT];
    for (int i = 0; i < COUNT; i++)
        halves[i] = (uint16_t)(i * 911); // subnormals, both signs, NaNs
    for (DType dtype = DTYPE_F16; dtype <= DTYPE_BF16; dtype++) {
        dtype_widen(values, halves, dtype, COUNT);
        for (int i = 0; i < COUNT; i++)
            assert_int_equal(half_bits_of(values[i]),
                             half_bits_of(dtype == DTYPE_F16 ? half_f16_to_f32(halves[i])
                                                             : half_bf16_to_f32(halves[i])));
        dtype_narrow(back, dtype, values, COUNT);
        assert_memory_equal(back, halves, sizeof halves);
    }
}

static void test_narrowing_rounds_to_even(void **state)
{
    (void)state;
    const float values[3] = {1.0f + 0x1p-8f, 1.0f + 0x3p-8f, 1.0f + 0x1.8p-8f};
    uint16_t halves[3];
    dtype_narrow(halves, DTYPE_BF16, values, 3);
    assert_int_equal(halves[0], 0x3f80);
    assert_int_equal(halves[1], 0x3f82);
    assert_int_equal(halves[2], 0x3f81);
}

static void test_floats_are_copied(void **state)
{
    (void)state;
    float values[COUNT], copy[COUNT];
    testing_fill(values, COUNT, 1.0, 1);
    dtype_widen(copy, values, DTYPE_F32, COUNT);
    assert_memory_equal(copy, values, sizeof values);
    memset(copy, 0, sizeof copy);
    dtype_narrow(copy, DTYPE_F32, values, COUNT);
    assert_memory_equal(copy, values, sizeof values);
}

static void test_doubles_are_rounded(void **state)
{
    (void)state;
    const double values[4] = {0.1, -1e-50, 1e300, 1 + 0x1p-24};
    float rounded[4];
    dtype_widen(rounded, values, DTYPE_F64, 4);
    assert_true(rounded[0] == 0.1f && rounded[1] == 0 && isinf(rounded[2]) && rounded[3] == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halves_widen_and_narrow_back),
        cmocka_unit_test(test_narrowing_rounds_to_even),
        cmocka_unit_test(test_floats_are_copied),
        cmocka_unit_test(test_doubles_are_rounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
