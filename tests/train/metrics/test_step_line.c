// The line of a step in terminals of any width.
#include "tests/support/testing.h"

#include "train/metrics/step_line.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

// As long a run as one healing a model on a cluster is.
static const StepReport report = {.step = 12345,
                                  .loss = 2.34561,
                                  .grad_norm = 0.314,
                                  .lr = 1e-4,
                                  .step_s = 2,
                                  .data_wait_s = 0.002,
                                  .valid_loss = 2.45671,
                                  .valid_step = 12000};

static StepLine line_of(const StepReport *of)
{
    return (StepLine){.report = of,
                      .n_steps = 18000,
                      .tokens_per_s = 65536,
                      .products = "sgemm",
                      .products_share = 0.714,
                      .left_s = 11310};
}

static const char *written(const StepLine *line, int columns)
{
    static char text[512];
    step_line_write(text, sizeof text, line, columns);
    return text;
}

static void test_everything_fits_into_120_columns(void **state)
{
    (void)state;
    const StepLine line = line_of(&report);
    const char *text = written(&line, 119); // the last column of a terminal stays free
    assert_string_equal(text, "step 12345/18000  loss 2.3456  valid 2.4567@12000  norm 0.31  "
                              "lr 1.0e-4  65536 tok/s  71% sgemm  data 0.1%  eta 3:08:30");
    assert_string_equal(text, written(&line, INT_MAX));
}

// The parts of the loss follow it, and are the first to go.
static void test_losses_beside_a_teacher(void **state)
{
    (void)state;
    StepReport beside = report;
    beside.has_teacher = true;
    beside.ce = 2.31;
    beside.kl = 0.12345;
    beside.attention_mse = 0.0512;
    const StepLine line = line_of(&beside);
    assert_string_equal(written(&line, INT_MAX),
                        "step 12345/18000  loss 2.3456  ce 2.3100  kl 0.1235  mse 0.0512  "
                        "valid 2.4567@12000  norm 0.31  lr 1.0e-4  65536 tok/s  71% sgemm  "
                        "data 0.1%  eta 3:08:30");
    const StepLine alone = line_of(&report);
    char expected[512];
    snprintf(expected, sizeof expected, "%s", written(&alone, 119));
    assert_string_equal(written(&line, 119), expected);
}

static void test_what_tells_least_goes_first(void **state)
{
    (void)state;
    StepReport skipping = report;
    skipping.n_skipped = 3;
    const StepLine line = line_of(&skipping);
    const struct {
        int columns;
        const char *text;
    } cases[] = {
        {119, "step 12345/18000  loss 2.3456  valid 2.4567@12000  norm 0.31  lr 1.0e-4  "
              "65536 tok/s  71% sgemm  3 skipped  eta 3:08:30"},
        {108, "step 12345/18000  loss 2.3456  valid 2.4567@12000  norm 0.31  65536 tok/s  "
              "71% sgemm  3 skipped  eta 3:08:30"},
        {97, "step 12345/18000  loss 2.3456  valid 2.4567@12000  norm 0.31  65536 tok/s  "
             "3 skipped  eta 3:08:30"},
        {86, "step 12345/18000  loss 2.3456  valid 2.4567@12000  65536 tok/s  3 skipped  "
             "eta 3:08:30"},
        {60, "step 12345/18000  loss 2.3456  65536 tok/s  eta 3:08:30"},
        {45, "step 12345/18000  loss 2.3456  eta 3:08:30"},
        {30, "step 12345/18000  loss 2.3456"},
        {20, "step 12345/18000"},
        {1, "step 12345/18000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(written(&line, cases[i].columns), cases[i].text);
    for (int columns = 16; columns < 200; columns++)
        assert_true((int)strlen(written(&line, columns)) <= columns);
}

static void test_what_is_not_known_is_left_out(void **state)
{
    (void)state;
    StepReport unknown = report;
    unknown.valid_loss = NAN;
    StepLine line = line_of(&unknown);
    line.products_share = NAN;
    assert_string_equal(written(&line, INT_MAX),
                        "step 12345/18000  loss 2.3456  norm 0.31  lr 1.0e-4  65536 tok/s  "
                        "data 0.1%  eta 3:08:30");
}

static void test_small_and_large_numbers(void **state)
{
    (void)state;
    StepReport odd = report;
    odd.grad_norm = 0.00123;
    odd.lr = 2.5e-12;
    StepLine line = line_of(&odd);
    line.tokens_per_s = 1234567;
    assert_non_null(strstr(written(&line, INT_MAX), "  norm 0.0012  lr 2.5e-12  1235k tok/s  "));
    odd.lr = 0;
    line.tokens_per_s = 45.6e6;
    assert_non_null(strstr(written(&line, INT_MAX), "  lr 0  45.6M tok/s  "));
}

static void test_short_buffers_are_not_overrun(void **state)
{
    (void)state;
    const StepLine line = line_of(&report);
    char text[24];
    memset(text, 'x', sizeof text);
    step_line_write(text, 20, &line, INT_MAX);
    assert_string_equal(text, "step 12345/18000  l");
    assert_int_equal(text[20], 'x');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_fits_into_120_columns),
        cmocka_unit_test(test_losses_beside_a_teacher),
        cmocka_unit_test(test_what_tells_least_goes_first),
        cmocka_unit_test(test_what_is_not_known_is_left_out),
        cmocka_unit_test(test_small_and_large_numbers),
        cmocka_unit_test(test_short_buffers_are_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
