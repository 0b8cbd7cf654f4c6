// metrics.jsonl: what a run writes, and what it says when it cannot.
#include "tests/testing.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "train/metrics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const StepReport report = {.step = 10,
                                  .tokens = 20480,
                                  .loss = 3.25,
                                  .grad_norm = 0.5,
                                  .lr = 1e-4,
                                  .step_s = 0.5,
                                  .data_wait_s = 0.004};

// Calls the function with stderr in a file, and reads what was said.
static void capture(char *out, size_t out_bytes, void (*say)(void))
{
    fflush(stderr);
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO);
    assert_non_null(file);
    assert_true(saved >= 0);
    dup2(fileno(file), STDERR_FILENO);
    say();
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    out[fread(out, 1, out_bytes - 1, file)] = '\0';
    fclose(file);
}

static double number(const json_t *object, const char *key)
{
    double value;
    assert_ok(json_get_real(&value, object, "metrics.jsonl", key, -1e12, 1e12));
    return value;
}

static char run_dir[PATH_BYTES];

static void write_two_lines(void)
{
    Metrics metrics;
    assert_ok(metrics_open(&metrics, run_dir, 100, 10));
    assert_ok(metrics_step(&metrics, &report, NAN)); // not validated yet: nothing to print
    assert_ok(metrics_validation(&metrics, 10, 20480, 2.75));
    metrics_close(&metrics);
}

static void test_lines_are_the_documented_objects(void **state)
{
    (void)state;
    char said[512], line[512], path[PATH_BYTES];
    strcpy(run_dir, testing_dir());
    capture(said, sizeof said, write_two_lines);
    assert_ok(file_join(path, run_dir, "metrics.jsonl"));
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    json_t *step, *validation;
    assert_non_null(fgets(line, sizeof line, file));
    assert_ok(json_parse(&step, line, (int64_t)strlen(line), path));
    assert_non_null(fgets(line, sizeof line, file));
    assert_ok(json_parse(&validation, line, (int64_t)strlen(line), path));
    assert_null(fgets(line, sizeof line, file));
    fclose(file);
    assert_true(number(step, "step") == 10 && number(step, "tokens") == 20480);
    assert_true(number(step, "loss") == 3.25 && number(step, "grad_norm") == 0.5);
    assert_true(number(step, "lr") == 1e-4);
    assert_true(number(step, "tokens_per_s") == 4096); // 2048 tokens of one step in half a second
    assert_true(number(step, "data_wait_s") == 0.004);
    assert_true(number(step, "elapsed_s") >= 0);
    assert_true(number(validation, "step") == 10 && number(validation, "valid_loss") == 2.75);
    json_decref(step);
    json_decref(validation);
}

static Metrics to_nowhere(double elapsed_s)
{
    return (Metrics){.file = fopen("/dev/null", "w"),
                     .start_s = log_seconds() - elapsed_s,
                     .n_steps = 2000000000,
                     .every = 10};
}

static void say_step_of_a_century(void)
{
    Metrics metrics = to_nowhere(36000);
    assert_ok(metrics_step(&metrics, &report, 2.5));
    metrics_close(&metrics);
}

static void test_time_left_is_printed_however_long(void **state)
{
    (void)state;
    char said[512];
    capture(said, sizeof said, say_step_of_a_century);
    assert_non_null(strstr(said, "step 10/2000000000  loss 3.2500  valid 2.5000  norm 0.500"));
    // An hour for each of 2e9 steps, and 55 hours for every millisecond the test itself takes.
    const char *rate = strstr(said, "tokens/s  data 0.8 %  ");
    long long hours = 0;
    assert_non_null(rate);
    assert_int_equal(sscanf(rate, "tokens/s  data 0.8 %%  %lld:", &hours), 1);
    assert_true(hours >= 1999999990 && hours < 2001000000); // seen 1999999990
}

static void close_with_a_live_line(void)
{
    Metrics metrics = to_nowhere(1);
    metrics.is_terminal = true;
    assert_ok(metrics_step(&metrics, &report, NAN));
    metrics_close(&metrics);
}

static void test_an_error_after_a_live_line_has_its_own(void **state)
{
    (void)state;
    char said[512];
    capture(said, sizeof said, close_with_a_live_line);
    assert_int_equal(said[0], '\r');
    assert_int_equal(said[strlen(said) - 1], '\n');
}

static void test_ranks_without_a_file_are_silent(void **state)
{
    (void)state;
    Metrics metrics = {0};
    assert_ok(metrics_step(&metrics, &report, NAN));
    assert_ok(metrics_validation(&metrics, 10, 20480, 2.75));
    metrics_close(&metrics);
}

static void test_full_disk_is_reported(void **state)
{
    (void)state;
    if (!file_exists("/dev/full"))
        skip();
    Metrics metrics = {.file = fopen("/dev/full", "w"), .n_steps = 100, .every = 1000};
    assert_non_null(metrics.file);
    assert_fails(FAILED, "metrics.jsonl: write failed: No space left",
                 metrics_step(&metrics, &report, NAN));
    metrics_close(&metrics);
}

static void test_value_that_json_cannot_hold_is_an_error(void **state)
{
    (void)state;
    Metrics metrics = {.file = fopen("/dev/null", "w"), .n_steps = 100, .every = 1000};
    StepReport endless = report;
    endless.loss = INFINITY;
    assert_fails(FAILED, "not finite", metrics_step(&metrics, &endless, NAN));
    metrics_close(&metrics);
}

static void test_missing_directory_is_named(void **state)
{
    (void)state;
    Metrics metrics;
    assert_fails(FAILED, "/nonexistent/run/metrics.jsonl: cannot be written: No such file",
                 metrics_open(&metrics, "/nonexistent/run", 1, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_the_documented_objects),
        cmocka_unit_test(test_time_left_is_printed_however_long),
        cmocka_unit_test(test_an_error_after_a_live_line_has_its_own),
        cmocka_unit_test(test_ranks_without_a_file_are_silent),
        cmocka_unit_test(test_full_disk_is_reported),
        cmocka_unit_test(test_value_that_json_cannot_hold_is_an_error),
        cmocka_unit_test(test_missing_directory_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
