// What is said of a step whose loss or gradient is not finite. How a run gets there is in
// test_loop.c.
#include "tests/support/testing.h"

#include "base/json.h"
#include "train/guard_trace.h"

#include <math.h>
#include <string.h>

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
    assert_int_equal(guard_trace_report(&trace, false), FAILED);
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
                 guard_trace_report(&trace, false));
    assert_non_null(strstr(fail_text(), "), and in 1 more of the step's micro-batches;"));
}

static void test_sum_that_overflows_is_told(void **state)
{
    (void)state;
    const GuardMicroBatch all[2] = {healthy(0), healthy(1)};
    const GuardTrace trace = trace_of(all, 2, "x.json");
    assert_fails(FAILED, "gradient norm is inf (loss nan) although each micro-batch's is finite",
                 guard_trace_report(&trace, false));
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
                 guard_trace_report(&trace, true));
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
    assert_fails(FAILED, "their losses are not written: ", guard_trace_report(&trace, true));
    assert_memory_equal(fail_text(), "step 12: gradient norm is inf", 29);
}

static void test_name_that_is_not_utf8_is_an_error(void **state)
{
    (void)state;
    GuardMicroBatch all[1] = {healthy(0)};
    strcpy(all[0].source, "caf\xe9");
    const GuardTrace trace = trace_of(all, 1, testing_path(testing_dir(), "x.json"));
    assert_fails(FAILED, "not written: ", guard_trace_report(&trace, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_micro_batch_that_is_not_finite_is_named),
        cmocka_unit_test(test_gradient_with_a_finite_loss_is_named),
        cmocka_unit_test(test_sum_that_overflows_is_told),
        cmocka_unit_test(test_file_has_every_micro_batch),
        cmocka_unit_test(test_file_that_cannot_be_written_is_told),
        cmocka_unit_test(test_name_that_is_not_utf8_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
