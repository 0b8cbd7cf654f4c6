// metrics.jsonl: what a run writes, and what it says when it cannot.
#define _GNU_SOURCE // memmem
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "train/metrics/metrics.h"
#include "train/metrics/metrics_resume.h"

#include <fcntl.h>
#include <glob.h>
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
                                  .data_wait_s = 0.004,
                                  .valid_loss = NAN};

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
    const MetricsOptions options = {
        .run_dir = run_dir, .n_steps = 100, .every = 10, .valid_set = "5d1f08a3"};
    StepReport with_phases = report;
    with_phases.phase_s[PHASE_FORWARD] = 0.25;
    assert_ok(metrics_open(&metrics, &options));
    assert_ok(metrics_step(&metrics, &with_phases));
    assert_ok(metrics_validation(&metrics, 10, 20480, 2.75));
    metrics_close(&metrics);
}

static void test_lines_are_the_documented_objects(void **state)
{
    (void)state;
    char said[512], line[512], path[PATH_BYTES];
    strcpy(run_dir, testing_dir());
    testing_capture(said, sizeof said, write_two_lines);
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
    assert_true(number(step, "forward_s") == 0.25);
    assert_null(json_object_get(step, "save_s")); // nothing was saved
    assert_true(number(validation, "step") == 10 && number(validation, "valid_loss") == 2.75);
    assert_string_equal(json_string_value(json_object_get(validation, "validation_set")),
                        "5d1f08a3");
    json_decref(step);
    json_decref(validation);
}

static Metrics to_nowhere(double elapsed_s)
{
    return (Metrics){.is_open = true,
                     .file = open("/dev/null", O_WRONLY),
                     .first_step = 1,
                     .start_s = log_seconds() - elapsed_s,
                     .n_steps = 2000000000,
                     .every = 10};
}

static void say_step_of_a_century(void)
{
    Metrics metrics = to_nowhere(36000);
    StepReport validated = report;
    validated.valid_loss = 2.5;
    validated.valid_step = 8;
    assert_ok(metrics_step(&metrics, &validated));
    metrics_close(&metrics);
}

static void test_time_left_is_printed_however_long(void **state)
{
    (void)state;
    char said[512];
    testing_capture(said, sizeof said, say_step_of_a_century);
    assert_non_null(strstr(said, "mha2mla: step 10/2000000000  loss 3.2500  valid 2.5000@8  "
                                 "norm 0.50  lr 1.0e-4  4096 tok/s  data 0.8%  "));
    // An hour for each of 2e9 steps, and 55 hours for every millisecond the test itself takes.
    const char *rest = strstr(said, "data 0.8%  eta ");
    long long hours = 0;
    assert_int_equal(sscanf(rest, "data 0.8%%  eta %lld:", &hours), 1);
    assert_true(hours >= 1999999990 && hours < 2001000000); // seen 1999999990
}

static void close_with_a_live_line(void)
{
    Metrics metrics = to_nowhere(1);
    metrics.is_terminal = true;
    assert_ok(metrics_step(&metrics, &report));
    metrics_close(&metrics);
}

static void test_an_error_after_a_live_line_has_its_own(void **state)
{
    (void)state;
    char said[512];
    testing_capture(said, sizeof said, close_with_a_live_line);
    assert_int_equal(said[0], '\r');
    assert_int_equal(said[strlen(said) - 1], '\n');
}

static void test_ranks_without_a_file_are_silent(void **state)
{
    (void)state;
    Metrics metrics = {0};
    assert_ok(metrics_step(&metrics, &report));
    assert_ok(metrics_validation(&metrics, 10, 20480, 2.75));
    metrics_close(&metrics);
}

static void write_to_a_full_disk(void)
{
    Metrics metrics = {
        .is_open = true, .file = open("/dev/full", O_WRONLY), .n_steps = 100, .every = 1000};
    assert_true(metrics.file >= 0);
    assert_ok(metrics_step(&metrics, &report));
    assert_ok(metrics_validation(&metrics, 10, 20480, 2.75));
    assert_fails(FAILED, "metrics.jsonl: write failed: No space left", metrics_sync(&metrics));
    // There is room again: both lines are written, in order.
    char path[PATH_BYTES], text[512] = "";
    assert_ok(file_join(path, run_dir, "metrics.jsonl"));
    close(metrics.file);
    metrics.file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_ok(metrics_sync(&metrics));
    metrics_close(&metrics);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_ptr_equal(strstr(text, "{\"step\":10,"), text);
    const char *end = strchr(text, '\n');
    assert_non_null(end);
    assert_non_null(strstr(end, "valid_loss"));
}

static void test_full_disk_costs_no_line(void **state)
{
    (void)state;
    char said[1024];
    if (!file_exists("/dev/full"))
        skip();
    strcpy(run_dir, testing_dir());
    testing_capture(said, sizeof said, write_to_a_full_disk);
    const char *warning = strstr(said, "warning: metrics.jsonl: the disk is full");
    assert_non_null(warning);
    assert_null(strstr(warning + 1, "warning:")); // said once
}

static void write_text(const char *path, const char *text)
{
    assert_ok(file_write(path, text, (int64_t)strlen(text)));
}

// Resumes from a checkpoint with these steps and validation set.
static void check_cut_after(const char *text, const MetricsStart *resumed, size_t n_kept,
                            double earlier_s)
{
    char path[PATH_BYTES], now[1024] = "";
    Metrics metrics;
    strcpy(run_dir, testing_dir());
    assert_ok(file_join(path, run_dir, "metrics.jsonl"));
    write_text(path, text);
    const MetricsOptions options = {
        .run_dir = run_dir, .resumed = resumed, .n_steps = 100, .every = 10};
    assert_ok(metrics_open(&metrics, &options));
    assert_true(metrics.earlier_s == earlier_s);
    metrics_close(&metrics);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fread(now, 1, sizeof now, file), n_kept);
    assert_memory_equal(now, text, n_kept);
    fclose(file);
}

static void check_cut(const char *text, int step, size_t n_kept, double earlier_s)
{
    log_set_quiet(true); // lines that are missing are said
    check_cut_after(text, &(MetricsStart){step, step, ""}, n_kept, earlier_s);
    log_set_quiet(false);
}

static void test_resuming_cuts_later_lines(void **state)
{
    (void)state;
    const char *text = "{\"step\":0,\"valid_loss\":3}\n"
                       "{\"step\":1,\"loss\":2,\"elapsed_s\":4.5}\n"
                       "{\"step\":1,\"valid_loss\":3}\n"
                       "{\"step\":2,\"loss\":2,\"elapsed_s\":9}\n";
    const size_t line[] = {26, 36, 26, 34}; // bytes
    assert_int_equal(strlen(text), line[0] + line[1] + line[2] + line[3]);
    check_cut(text, 0, line[0], 0);
    check_cut(text, 1, line[0] + line[1] + line[2], 4.5);
    check_cut(text, 2, strlen(text), 9);
    check_cut(text, 50, strlen(text), 9);
}

static void test_resuming_drops_what_a_crash_cut_off(void **state)
{
    (void)state;
    check_cut("{\"step\":1,\"loss\":2}\n{\"step\":2,\"lo", 5, 20, 0);
    check_cut("{\"step\":1,\"loss\":2}\ngarbage\n", 5, 20, 0);
    check_cut("", 5, 0, 0);
}

// What the file is after it was resumed from `step`.
static void check_becomes(const char *text, int step, const char *wanted)
{
    char path[PATH_BYTES], now[1024] = "";
    const char *dir = testing_dir();
    assert_ok(file_join(path, dir, "metrics.jsonl"));
    write_text(path, text);
    const MetricsStart resumed = {step, step, ""};
    const MetricsOptions options = {
        .run_dir = dir, .resumed = &resumed, .n_steps = 100, .every = 10};
    Metrics metrics;
    log_set_quiet(true); // that they are put in order is said
    assert_ok(metrics_open(&metrics, &options));
    assert_int_equal(metrics.size_bytes, strlen(wanted));
    metrics_close(&metrics);
    log_set_quiet(false);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    now[fread(now, 1, sizeof now - 1, file)] = '\0';
    fclose(file);
    assert_string_equal(now, wanted);
}

// The step is in the checkpoint, so its line would never be written again.
static void test_a_whole_last_line_without_its_newline_stays(void **state)
{
    (void)state;
    check_becomes("{\"step\":1,\"loss\":2}\n{\"step\":2,\"loss\":3}", 5,
                  "{\"step\":1,\"loss\":2}\n{\"step\":2,\"loss\":3}\n");
    check_becomes("{\"step\":1,\"loss\":2}\n{\"step\":2,\"loss\":3}", 1,
                  "{\"step\":1,\"loss\":2}\n");
}

static void test_doubled_and_shuffled_lines_are_put_in_order(void **state)
{
    (void)state;
    // The newer of two lines of a step stays; a validation is not the training of its step.
    check_becomes(
        "{\"step\":1,\"loss\":2}\n{\"step\":1,\"loss\":9}\n{\"step\":1,\"valid_loss\":3}\n", 1,
        "{\"step\":1,\"loss\":9}\n{\"step\":1,\"valid_loss\":3}\n");
    check_becomes(
        "{\"step\":3,\"loss\":2}\n{\"step\":1,\"loss\":9}\n# a note\n{\"step\":2,\"loss\":5}\n", 3,
        "{\"step\":1,\"loss\":9}\n# a note\n{\"step\":2,\"loss\":5}\n{\"step\":3,\"loss\":2}\n");
    // Lines behind one that is later than the checkpoint.
    check_becomes("{\"step\":1,\"loss\":2}\n{\"step\":3,\"loss\":9}\n{\"step\":2,\"loss\":5}\n", 2,
                  "{\"step\":1,\"loss\":2}\n{\"step\":2,\"loss\":5}\n");
}

// Stopped after step 4, validated by the next process, which did not come to a checkpoint.
// An evaluation comes after the step's validation, and goes with the steps that come again.
static void test_evaluations_on_tasks_are_resumed_like_steps(void **state)
{
    (void)state;
    static const char text[] = "{\"step\":2,\"loss\":2}\n"
                               "{\"step\":2,\"valid_loss\":3}\n"
                               "{\"step\":2,\"tasks\":{\"piqa\":0.5}}\n"
                               "{\"step\":3,\"loss\":2}\n"
                               "{\"step\":4,\"loss\":2}\n"
                               "{\"step\":4,\"tasks\":{\"piqa\":0.75}}\n";
    check_becomes(text, 4, text);
    check_becomes(text, 3,
                  "{\"step\":2,\"loss\":2}\n{\"step\":2,\"valid_loss\":3}\n"
                  "{\"step\":2,\"tasks\":{\"piqa\":0.5}}\n{\"step\":3,\"loss\":2}\n");
    // Of two of one step the newer stays, behind the validation.
    check_becomes("{\"step\":2,\"tasks\":{\"piqa\":0.5}}\n{\"step\":2,\"loss\":2}\n"
                  "{\"step\":2,\"tasks\":{\"piqa\":0.25}}\n{\"step\":2,\"valid_loss\":3}\n",
                  2,
                  "{\"step\":2,\"loss\":2}\n{\"step\":2,\"valid_loss\":3}\n"
                  "{\"step\":2,\"tasks\":{\"piqa\":0.25}}\n");
    const char *path = testing_path(testing_dir(), "metrics.jsonl");
    static const struct {
        int step;
        int64_t evaluated;
    } cases[] = {{4, 4}, {3, 2}, {1, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        EarlierMetrics earlier;
        write_text(path, text);
        assert_ok(metrics_resume(&earlier, path, &(MetricsStart){cases[i].step, -1, ""}));
        assert_int_equal(earlier.tasks_step, cases[i].evaluated);
    }
}

static void test_a_validation_that_comes_again_is_cut(void **state)
{
    (void)state;
    const char *text = "{\"step\":2,\"valid_loss\":3}\n{\"step\":4,\"loss\":2}\n"
                       "{\"step\":4,\"valid_loss\":3}\n";
    check_cut_after(text, &(MetricsStart){4, 2, ""}, 46, 0);
    check_cut_after(text, &(MetricsStart){4, 4, ""}, strlen(text), 0);
    check_cut_after("{\"step\":0,\"valid_loss\":3}\n", &(MetricsStart){0, -1, ""}, 0, 0);
}

// Resumed at step 4 with another validation set, which is measured there at once: the file has
// both.
static void test_two_validation_sets_at_one_step_are_told_apart(void **state)
{
    (void)state;
    const char *text = "{\"step\":4,\"loss\":2}\n"
                       "{\"step\":4,\"valid_loss\":3,\"validation_set\":\"a\"}\n"
                       "{\"step\":4,\"valid_loss\":5,\"validation_set\":\"b\"}\n"
                       "{\"step\":5,\"loss\":2}\n";
    check_cut_after(text, &(MetricsStart){4, 4, "a"}, 67, 0); // no checkpoint since: measured again
    check_cut_after(text, &(MetricsStart){5, 4, "b"}, strlen(text), 0);
    check_cut_after(text, &(MetricsStart){4, 4, "b"}, 114, 0);
}

// Whether an event file of the run has the text, which the format keeps as it is.
static bool events_have(const char *text)
{
    char pattern[2 * PATH_BYTES];
    bool has_text = false;
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/events.out.tfevents.*", run_dir);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        FileMap map;
        assert_ok(file_map(&map, found.gl_pathv[i]));
        has_text =
            has_text || memmem(map.bytes, (size_t)map.size_bytes, text, strlen(text)) != NULL;
        file_unmap(&map);
    }
    globfree(&found);
    return has_text;
}

static void validate_on(const char *set, const MetricsStart *resumed)
{
    Metrics metrics;
    const MetricsOptions options = {.run_dir = run_dir,
                                    .host = "host",
                                    .resumed = resumed,
                                    .n_steps = 100,
                                    .every = 10,
                                    .tensorboard = true,
                                    .valid_set = set};
    assert_ok(metrics_open(&metrics, &options));
    assert_ok(metrics_validation(&metrics, 0, 0, 2.75));
    metrics_close(&metrics);
}

static void test_another_validation_set_is_another_curve_in_tensorboard(void **state)
{
    (void)state;
    strcpy(run_dir, testing_dir());
    log_set_quiet(true);
    validate_on("aa", NULL);
    validate_on("aa", &(MetricsStart){0, 0, "aa"});
    assert_true(events_have("valid/loss") && !events_have("valid/loss-"));
    validate_on("bb", &(MetricsStart){0, 0, "aa"});
    assert_true(events_have("valid/loss-bb"));
    log_set_quiet(false);
}

static void test_lines_after_one_that_is_not_ours_are_kept(void **state)
{
    (void)state;
    const char *text = "{\"step\":1,\"loss\":2}\n\n# a note\n{\"step\":2,\"loss\":2}\n";
    check_cut(text, 2, strlen(text), 0);
    check_cut(text, 1, 20, 0);
}

static void resume_without_lines(void)
{
    check_cut_after("{\"step\":1,\"loss\":2}\n", &(MetricsStart){5, 5, ""}, 20, 0);
}

static void test_missing_lines_are_said(void **state)
{
    (void)state;
    char said[512 + PATH_BYTES];
    testing_capture(said, sizeof said, resume_without_lines);
    assert_non_null(strstr(said, "up to step 1 only, the run continues after step 5"));
}

static void test_value_that_json_cannot_hold_is_an_error(void **state)
{
    (void)state;
    Metrics metrics = {
        .is_open = true, .file = open("/dev/null", O_WRONLY), .n_steps = 100, .every = 1000};
    StepReport endless = report;
    endless.loss = INFINITY;
    assert_fails(FAILED, "not finite", metrics_step(&metrics, &endless));
    metrics_close(&metrics);
}

static void test_missing_directory_is_named(void **state)
{
    (void)state;
    Metrics metrics;
    const MetricsOptions options = {.run_dir = testing_absent("run"), .n_steps = 1, .every = 1};
    assert_fails(FAILED, "/absent/run/metrics.jsonl: cannot be written: No such file",
                 metrics_open(&metrics, &options));
}

static void resume_without_file(void)
{
    Metrics metrics;
    const MetricsStart resumed = {5, -1, ""};
    const MetricsOptions options = {
        .run_dir = testing_dir(), .resumed = &resumed, .n_steps = 100, .every = 10};
    assert_ok(metrics_open(&metrics, &options));
    metrics_close(&metrics);
}

static void test_missing_file_is_said(void **state)
{
    (void)state;
    char said[512 + PATH_BYTES];
    testing_capture(said, sizeof said, resume_without_file);
    assert_non_null(strstr(said, "up to step 0 only, the run continues after step 5"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_the_documented_objects),
        cmocka_unit_test(test_time_left_is_printed_however_long),
        cmocka_unit_test(test_an_error_after_a_live_line_has_its_own),
        cmocka_unit_test(test_ranks_without_a_file_are_silent),
        cmocka_unit_test(test_full_disk_costs_no_line),
        cmocka_unit_test(test_resuming_cuts_later_lines),
        cmocka_unit_test(test_resuming_drops_what_a_crash_cut_off),
        cmocka_unit_test(test_a_whole_last_line_without_its_newline_stays),
        cmocka_unit_test(test_doubled_and_shuffled_lines_are_put_in_order),
        cmocka_unit_test(test_evaluations_on_tasks_are_resumed_like_steps),
        cmocka_unit_test(test_a_validation_that_comes_again_is_cut),
        cmocka_unit_test(test_two_validation_sets_at_one_step_are_told_apart),
        cmocka_unit_test(test_another_validation_set_is_another_curve_in_tensorboard),
        cmocka_unit_test(test_lines_after_one_that_is_not_ours_are_kept),
        cmocka_unit_test(test_missing_lines_are_said),
        cmocka_unit_test(test_missing_file_is_said),
        cmocka_unit_test(test_value_that_json_cannot_hold_is_an_error),
        cmocka_unit_test(test_missing_directory_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
