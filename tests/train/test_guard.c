#include "tests/support/testing.h"

#include "base/json.h"
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

// ---- Spikes ----

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
    for (int i = 1; i < GUARD_MOST_SKIPS_IN_ROW; i++)
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
    for (int i = 0; i < 5 * GUARD_MOST_SKIPS_IN_ROW; i++)
        assert_int_equal(skips(&spikes, i % 3 < 2 ? 100 : 2), i % 3 < 2);
    assert_int_equal(spikes.n_skipped_in_row, 2);
}

// ---- A step that is not finite ----

static GuardMicroBatch healthy(int index)
{
    return (GuardMicroBatch){.rank = index / 2,
                             .first_sample = 100 + 2 * index,
                             .n_samples = 2,
                             .source = "stories epoch 0 sample 7",
                             .loss = 2.5,
                             .grad_norm = 0.25};
}

static GuardTrace trace_of(const GuardMicroBatch *micro_batches, int count, const char *file)
{
    return (GuardTrace){.step = 12,
                        .loss = NAN,
                        .grad_norm = INFINITY,
                        .micro_batches = micro_batches,
                        .count = count,
                        .file = file};
}

static void test_first_micro_batch_that_is_not_finite_is_named(void **state)
{
    (void)state;
    GuardMicroBatch all[4] = {healthy(0), healthy(1), healthy(2), healthy(3)};
    all[2].loss = -NAN;
    all[2].grad_norm = NAN;
    const GuardTrace trace = trace_of(all, 4, "runs/x/nonfinite-step-12.json");
    assert_int_equal(guard_report_nonfinite(&trace, false), FAILED);
    assert_string_equal(fail_text(),
                        "step 12: loss is nan in samples 104 to 105 on rank 1 (first: stories "
                        "epoch 0 sample 7); weights are unchanged; lower optim.lr or look at these "
                        "samples; runs/x/nonfinite-step-12.json has the losses of all");
}

static void test_gradient_with_a_finite_loss_is_named(void **state)
{
    (void)state;
    GuardMicroBatch all[3] = {healthy(0), healthy(1), healthy(2)};
    all[1].grad_norm = INFINITY;
    all[2].grad_norm = NAN;
    const GuardTrace trace = trace_of(all, 3, "x.json");
    assert_fails(FAILED, "step 12: gradient norm is inf in samples 102 to 103 on rank 0 (",
                 guard_report_nonfinite(&trace, false));
    assert_non_null(strstr(fail_text(), "), and in 1 more of the step's micro-batches;"));
}

static void test_sum_that_overflows_is_told(void **state)
{
    (void)state;
    const GuardMicroBatch all[2] = {healthy(0), healthy(1)};
    const GuardTrace trace = trace_of(all, 2, "x.json");
    assert_fails(FAILED, "gradient norm is inf (loss nan) although each micro-batch's is finite",
                 guard_report_nonfinite(&trace, false));
}

static void test_file_has_every_micro_batch(void **state)
{
    (void)state;
    GuardMicroBatch all[2] = {healthy(0), healthy(1)};
    all[1].grad_norm = NAN;
    all[1].loss = -INFINITY;
    const char *path = testing_path(testing_dir(), "nonfinite-step-12.json");
    const GuardTrace trace = trace_of(all, 2, path);
    assert_fails(FAILED, "nonfinite-step-12.json has the losses of all",
                 guard_report_nonfinite(&trace, true));
    json_t *root;
    assert_ok(json_read(&root, path));
    assert_int_equal(json_integer_value(json_object_get(root, "step")), 12);
    assert_string_equal(json_string_value(json_object_get(root, "loss")), "nan");
    assert_string_equal(json_string_value(json_object_get(root, "grad_norm")), "inf");
    const json_t *list = json_object_get(root, "micro_batches");
    assert_int_equal(json_array_size(list), 2);
    const json_t *good = json_array_get(list, 0), *bad = json_array_get(list, 1);
    assert_true(json_is_true(json_object_get(good, "finite")));
    assert_true(json_real_value(json_object_get(good, "loss")) == 2.5);
    assert_true(json_is_false(json_object_get(bad, "finite")));
    assert_string_equal(json_string_value(json_object_get(bad, "loss")), "-inf");
    assert_string_equal(json_string_value(json_object_get(bad, "grad_norm")), "nan");
    const json_t *samples = json_object_get(bad, "samples");
    assert_int_equal(json_integer_value(json_array_get(samples, 0)), 102);
    assert_int_equal(json_integer_value(json_array_get(samples, 1)), 103);
    json_decref(root);
}

static void test_file_that_cannot_be_written_is_told(void **state)
{
    (void)state;
    const GuardMicroBatch all[1] = {healthy(0)};
    const char *missing = testing_path(testing_path(testing_dir(), "missing"), "x.json");
    const GuardTrace trace = trace_of(all, 1, missing);
    assert_fails(FAILED, "their losses are not written: ", guard_report_nonfinite(&trace, true));
    assert_memory_equal(fail_text(), "step 12: gradient norm is inf", 29);
}

static void test_name_that_is_not_utf8_is_an_error(void **state)
{
    (void)state;
    GuardMicroBatch all[1] = {healthy(0)};
    strcpy(all[0].source, "caf\xe9");
    const GuardTrace trace = trace_of(all, 1, testing_path(testing_dir(), "x.json"));
    assert_fails(FAILED, "not written: ", guard_report_nonfinite(&trace, true));
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
        cmocka_unit_test(test_first_micro_batch_that_is_not_finite_is_named),
        cmocka_unit_test(test_gradient_with_a_finite_loss_is_named),
        cmocka_unit_test(test_sum_that_overflows_is_told),
        cmocka_unit_test(test_file_has_every_micro_batch),
        cmocka_unit_test(test_file_that_cannot_be_written_is_told),
        cmocka_unit_test(test_name_that_is_not_utf8_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
