// What products compute in, and which kernel runs those of bfloat16.
#include "tests/support/testing.h"

#include "model/kernels/compute.h"

#include <string.h>

static void test_names_are_the_words_of_the_config(void **state)
{
    (void)state;
    assert_string_equal(compute_name(COMPUTE_FLOAT32), "float32");
    assert_string_equal(compute_name(COMPUTE_BFLOAT16), "bfloat16");
}

static void test_the_best_kernel_that_is_there_runs(void **state)
{
    (void)state;
    const Bf16Kernel kernel = bf16_kernel();
    assert_true(bf16_kernel_is_there(kernel));
    for (int better = kernel + 1; better < N_BF16_KERNELS; better++)
        assert_false(bf16_kernel_is_there((Bf16Kernel)better));
}

static void test_a_forced_kernel_runs(void **state)
{
    (void)state;
    for (Bf16Kernel kernel = 0; kernel < N_BF16_KERNELS; kernel++) {
        if (!bf16_kernel_is_there(kernel))
            continue;
        bf16_force_kernel(kernel);
        assert_int_equal(bf16_kernel(), kernel);
        assert_int_equal(strncmp(bf16_kernel_name(), "emulated", 8) == 0, kernel == BF16_EMULATED);
    }
}

// It needs no instructions of the CPU's.
static void test_emulation_is_there_everywhere(void **state)
{
    (void)state;
    assert_true(bf16_kernel_is_there(BF16_EMULATED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_the_words_of_the_config),
        cmocka_unit_test(test_the_best_kernel_that_is_there_runs),
        cmocka_unit_test(test_a_forced_kernel_runs),
        cmocka_unit_test(test_emulation_is_there_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
