// Which products a command may run by: what is refused, what is emulated, how it is named. Started
// on several ranks, which have one kind of CPU here; one of them is made to have another.
#include "tests/support/testing.h"
#include "tests/support/testing_compute.h"
#include "tests/support/testing_ranks.h"

#include "train/plan/compute_check.h"

#include <stdio.h>
#include <string.h>

static Comm comm;

static void test_float32_needs_nothing(void **state)
{
    (void)state;
    bf16_force_kernel(BF16_EMULATED);
    assert_ok(compute_check(&comm, COMPUTE_FLOAT32, false, "train.compute"));
}

// A CPU without instructions for bfloat16 has the emulated kernel as its best.
static void test_bfloat16_is_refused_without_instructions(void **state)
{
    (void)state;
    bf16_force_kernel(BF16_EMULATED);
    assert_fails(BAD_INPUT,
                 "train.compute is bfloat16, but this CPU has neither AVX512-BF16 nor AMX-BF16",
                 compute_check(&comm, COMPUTE_BFLOAT16, false, "train.compute"));
    assert_fails(BAD_INPUT, "or give --emulate",
                 compute_check(&comm, COMPUTE_BFLOAT16, false, "--compute"));
}

// The last rank alone: all are told which it is.
static void test_one_rank_without_instructions(void **state)
{
    (void)state;
    Bf16Kernel best = BF16_EMULATED;
    for (int kernel = 0; kernel < N_BF16_KERNELS; kernel++)
        best = bf16_kernel_is_there((Bf16Kernel)kernel) ? (Bf16Kernel)kernel : best;
    if (best == BF16_EMULATED || comm.size == 1)
        skip();
    char text[64];
    snprintf(text, sizeof text, "rank %d on ", comm.size - 1);
    bf16_force_kernel(comm.rank == comm.size - 1 ? BF16_EMULATED : best);
    assert_fails(BAD_INPUT, text, compute_check(&comm, COMPUTE_BFLOAT16, false, "train.compute"));
    bf16_force_kernel(best);
    assert_ok(compute_check(&comm, COMPUTE_BFLOAT16, false, "train.compute"));
}

static void test_emulation_is_forced(void **state)
{
    (void)state;
    for (int kernel = -1; testing_next_kernel(&kernel);) {
        assert_ok(compute_check(&comm, COMPUTE_BFLOAT16, true, "train.compute"));
        assert_int_equal(bf16_kernel(), BF16_EMULATED);
    }
}

static void test_names(void **state)
{
    (void)state;
    static const char *const by[N_BF16_KERNELS] = {[BF16_EMULATED] = "in bfloat16 emulated",
                                                   [BF16_AVX512] = "in bfloat16 by AVX512-BF16",
                                                   [BF16_AMX] = "in bfloat16 by AMX"};
    char text[COMPUTE_TEXT_BYTES];
    assert_int_equal(strncmp(compute_describe(text, COMPUTE_FLOAT32), "in float32 by ", 14), 0);
    for (int kernel = -1; testing_next_kernel(&kernel);) {
        compute_describe(text, COMPUTE_BFLOAT16);
        assert_int_equal(strncmp(text, by[kernel], strlen(by[kernel])), 0);
    }
}

// Unequal kernels are a warning: training works with them.
static void test_ranks_with_other_instructions(void **state)
{
    (void)state;
    if (!bf16_kernel_is_there(BF16_AMX) || !bf16_kernel_is_there(BF16_AVX512))
        skip();
    bf16_force_kernel(comm.rank % 2 == 0 ? BF16_AMX : BF16_AVX512);
    assert_ok(compute_check(&comm, COMPUTE_BFLOAT16, false, "train.compute"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float32_needs_nothing),
        cmocka_unit_test(test_bfloat16_is_refused_without_instructions),
        cmocka_unit_test(test_one_rank_without_instructions),
        cmocka_unit_test(test_emulation_is_forced),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_ranks_with_other_instructions),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
