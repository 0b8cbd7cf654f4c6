// Which gradient norms count as spikes.
#include "tests/support/testing.h"

#include "train/guard.h"

#include <math.h>
#include <string.h>

enum { WINDOW = 4 };

static bool skips(SpikeHistory *spikes, double norm)
{
    bool is_skipped = false;
    assert_ok(guard_check_spike(&is_skipped, spikes, 1, norm, 3, WINDOW));
    return is_skipped;
}

static SpikeHistory after_window(void)
{
    SpikeHistory spikes = {0};
    for (int i = 0; i < WINDOW; i++)
        assert_false(skips(&spikes, i + 1)); // mean 2.5
    return spikes;
}

static void test_first_steps_are_never_skipped(void **state)
{
    (void)state;
    SpikeHistory spikes = {0};
    assert_false(skips(&spikes, 1));
    assert_false(skips(&spikes, 1000));
    assert_false(skips(&spikes, 100000));
    assert_false(skips(&spikes, 1));
    assert_int_equal(spikes.n_accepted, WINDOW);
}

static void test_mean_of_the_first_window_is_plain(void **state)
{
    (void)state;
    assert_true(after_window().mean == 2.5);
}

static void test_mean_is_exponential_after_it(void **state)
{
    (void)state;
    SpikeHistory spikes = after_window();
    assert_false(skips(&spikes, 4.5));
    assert_true(spikes.mean == 2.5 + (4.5 - 2.5) / WINDOW);
}

static void test_norm_above_factor_times_the_mean_is_skipped(void **state)
{
    (void)state;
    SpikeHistory spikes = after_window();
    SpikeHistory same = spikes;
    assert_false(skips(&same, 7.5)); // exactly 3 times
    assert_true(skips(&spikes, 7.5000001));
    assert_int_equal(spikes.n_skipped, 1);
    assert_int_equal(spikes.n_accepted, WINDOW);
    assert_true(spikes.mean == 2.5); // a spike does not raise it
}

static void test_factor_0_never_skips(void **state)
{
    (void)state;
    SpikeHistory spikes = after_window();
    bool is_skipped = true;
    assert_ok(guard_check_spike(&is_skipped, &spikes, 5, 1e30, 0, WINDOW));
    assert_false(is_skipped);
}

static void test_gradient_of_zeros_makes_no_spike_of_the_next(void **state)
{
    (void)state;
    SpikeHistory spikes = {0};
    for (int i = 0; i < WINDOW; i++)
        assert_false(skips(&spikes, 0));
    assert_false(skips(&spikes, 1e-3));
}

static void test_norm_that_stays_ends_the_run(void **state)
{
    (void)state;
    SpikeHistory spikes = after_window();
    for (int i = 1; i < GUARD_MAX_SKIPS_IN_ROW; i++)
        assert_true(skips(&spikes, 100));
    bool is_skipped;
    assert_fails(FAILED,
                 "step 77: gradient norm 100 is above train.skip_spikes 3 times the mean "
                 "2.5 for 10 steps in a row",
                 guard_check_spike(&is_skipped, &spikes, 77, 100, 3, WINDOW));
}

static void test_accepted_step_ends_the_row(void **state)
{
    (void)state;
    SpikeHistory spikes = after_window();
    for (int i = 0; i < 5 * GUARD_MAX_SKIPS_IN_ROW; i++)
        assert_int_equal(skips(&spikes, i % 3 < 2 ? 100 : 2), i % 3 < 2);
    assert_int_equal(spikes.n_skipped_in_row, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_steps_are_never_skipped),
        cmocka_unit_test(test_mean_of_the_first_window_is_plain),
        cmocka_unit_test(test_mean_is_exponential_after_it),
        cmocka_unit_test(test_norm_above_factor_times_the_mean_is_skipped),
        cmocka_unit_test(test_factor_0_never_skips),
        cmocka_unit_test(test_gradient_of_zeros_makes_no_spike_of_the_next),
        cmocka_unit_test(test_norm_that_stays_ends_the_run),
        cmocka_unit_test(test_accepted_step_ends_the_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
