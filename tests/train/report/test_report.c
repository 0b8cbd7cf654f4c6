// What a report computes: smoothed losses, differences to the baseline, what is summed up and what
// is drawn; colours; the script's strings. Files and odd runs are in tests/program/compare.sh.
#include "tests/support/testing.h"

#include "base/file.h"
#include "train/report/report.h"
#include "train/report/report_color.h"
#include "train/report/report_curves.h"
#include "train/report/report_equal.h"
#include "train/report/report_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// A run with steps 1..n of 100 tokens, losses as given, no validation.
static ReportRun make_run(const double *losses, int n)
{
    ReportRun run = {.dir = "run", .name = "run", .is_mla = true, .cache = 1, .original_cache = 8};
    run.newest_set = -1;
    run.points = calloc((size_t)n, sizeof *run.points);
    assert_non_null(run.points);
    run.n_points = n;
    for (int i = 0; i < n; i++)
        run.points[i] = (RunPoint){.step = i + 1,
                                   .tokens = 100 * (i + 1),
                                   .loss = losses[i],
                                   .lr = NAN,
                                   .tokens_per_s = NAN,
                                   .valid_loss = NAN,
                                   .valid_set = -1,
                                   .smoothed = NAN,
                                   .gap = NAN,
                                   .valid_gap = NAN,
                                   .is_drawn = true};
    return run;
}

static void validate(ReportRun *run, int i, double loss, const char *set_name)
{
    int set = 0;
    while (set < run->n_valid_sets && strcmp(run->valid_sets[set], set_name) != 0)
        set++;
    if (set == run->n_valid_sets) {
        run->valid_sets = realloc(run->valid_sets, (size_t)++run->n_valid_sets * sizeof(SetName));
        assert_non_null(run->valid_sets);
        strcpy(run->valid_sets[set], set_name);
    }
    run->points[i].valid_loss = loss;
    run->points[i].valid_set = run->newest_set = set;
}

static void test_smoothing_is_narrow_at_the_start_and_one_sided_at_the_end(void **state)
{
    (void)state;
    const double losses[] = {8, 4, 3, 5, 1, 3};
    const double expected[] = {8, 5, 21.0 / 5, 16.0 / 5, 3, 3}; // 2 to each side, where there are
    ReportRun run = make_run(losses, 6);
    assert_ok(report_curves_smooth(&run, 5));
    for (int i = 0; i < 6; i++)
        assert_true(fabs(run.points[i].smoothed - expected[i]) < 1e-12); // seen 0
    report_run_release(&run);
}

static void test_smoothing_steps_over_points_without_a_loss(void **state)
{
    (void)state;
    const double losses[] = {8, NAN, 4, 3};
    ReportRun run = make_run(losses, 4);
    assert_ok(report_curves_smooth(&run, 3));
    assert_true(run.points[0].smoothed == 8 && isnan(run.points[1].smoothed));
    assert_true(run.points[2].smoothed == 5 && run.points[3].smoothed == 3.5);
    report_run_release(&run);
}

static void test_gap_is_to_the_baseline_at_the_same_tokens(void **state)
{
    (void)state;
    const double losses[] = {9, 7, 6, 5}, base_losses[] = {4, 2, 1};
    ReportRun run = make_run(losses, 4), base = make_run(base_losses, 3);
    base.points[0].tokens = 150; // the run's 200 lies halfway to 250, its 100 before the first
    base.points[1].tokens = 250;
    base.points[2].tokens = 300;
    assert_ok(report_curves_smooth(&run, 1));
    assert_ok(report_curves_smooth(&base, 1));
    report_curves_gaps(&run, &base);
    assert_true(isnan(run.points[0].gap));
    assert_true(run.points[1].gap == 7 - 3);
    assert_true(run.points[2].gap == 6 - 1);
    assert_true(isnan(run.points[3].gap)); // beyond the baseline's end
    report_curves_summarize(&run, 10);
    assert_true(run.summary.gap == 5 && run.summary.gap_tokens == 300);
    assert_false(run.summary.is_gap_of_validation);
    report_run_release(&run);
    report_run_release(&base);
}

static void test_validation_counts_where_there_is_one(void **state)
{
    (void)state;
    const double losses[] = {NAN, 5, 4, 3, 2};
    ReportRun run = make_run(losses, 5);
    for (int i = 0; i < 5; i++)
        run.points[i].step = i; // the first is the model as converted
    validate(&run, 0, 9, "");
    validate(&run, 2, 3.5, "");
    validate(&run, 4, 3.75, "");
    assert_ok(report_curves_smooth(&run, 1));
    report_curves_summarize(&run, 0.05);
    assert_true(run.summary.is_validation && run.summary.converted == 9);
    assert_true(run.summary.best == 3.5 && run.summary.final == 3.75);
    assert_true(isnan(run.summary.gap) && run.summary.within_tokens == -1);
    report_run_release(&run);
}

static void test_validation_sets_are_not_compared_with_each_other(void **state)
{
    (void)state;
    const double losses[] = {NAN, 5, 4, 3, 2}, base_losses[] = {2, 2, 2, 2, 2};
    ReportRun run = make_run(losses, 5), base = make_run(base_losses, 5);
    for (int i = 0; i < 5; i++)
        run.points[i].step = base.points[i].step = i;
    run.original_loss = 0.5;
    strcpy(run.original_set, "a");
    validate(&run, 0, 9, "a");
    validate(&run, 1, 1.25, "a");
    assert_true(report_run_start_valid(&run) == 9 && report_run_original_valid(&run) == 0.5);
    validate(&run, 2, 7, "b");
    validate(&run, 3, 7.5, "b");
    for (int i = 0; i < 3; i++)
        validate(&base, i, 1, "a"); // none of it on b
    report_curves_gaps(&run, &base);
    assert_true(run.points[0].valid_gap == 8 && run.points[1].valid_gap == 0.25);
    assert_true(isnan(run.points[2].valid_gap) && isnan(run.points[3].valid_gap));
    report_curves_summarize(&run, 0.5);
    assert_true(run.summary.best == 7 && run.summary.final == 7.5);
    assert_true(isnan(run.summary.converted) && isnan(report_run_original_valid(&run)));
    assert_false(run.summary.is_gap_of_validation);
    validate(&base, 3, 1, "b");
    report_curves_gaps(&run, &base);
    assert_true(isnan(run.points[2].valid_gap) && run.points[3].valid_gap == 6.5);
    report_curves_summarize(&run, 0.5);
    assert_true(run.summary.is_gap_of_validation && run.summary.gap == 6.5);
    report_run_release(&run);
    report_run_release(&base);
}

static void test_within_counts_from_where_the_gap_stays_small(void **state)
{
    (void)state;
    const double losses[] = {5, 2.01, 3, 2.04, 2.05}, base_losses[] = {2, 2, 2, 2, 2};
    ReportRun run = make_run(losses, 5), base = make_run(base_losses, 5);
    assert_ok(report_curves_smooth(&run, 1));
    assert_ok(report_curves_smooth(&base, 1));
    report_curves_gaps(&run, &base);
    report_curves_summarize(&run, 0.0500001);
    assert_int_equal(run.summary.within_tokens, 400);
    report_curves_summarize(&run, 0.045);
    assert_int_equal(run.summary.within_tokens, -1);
    report_run_release(&run);
    report_run_release(&base);
}

static void test_thinning_keeps_ends_and_extremes(void **state)
{
    (void)state;
    enum { N = 20000, MOST = 400 };
    double *losses = malloc(N * sizeof *losses);
    assert_non_null(losses);
    for (int i = 0; i < N; i++)
        losses[i] = 2 + 0.1 * sin(i);
    losses[7777] = 50;
    losses[12345] = -1;
    ReportRun run = make_run(losses, N);
    validate(&run, 555, 3, "a");
    report_curves_thin(&run, MOST);
    int n = 0;
    for (int i = 0; i < N; i++)
        n += run.points[i].is_drawn;
    assert_true(n <= MOST + 2 && n > MOST / 2); // seen 303
    assert_true(run.points[0].is_drawn && run.points[N - 1].is_drawn);
    assert_true(run.points[7777].is_drawn && run.points[12345].is_drawn);
    assert_true(run.points[555].is_drawn);
    report_run_release(&run);
    free(losses);
}

static void test_axes_skip_a_start_that_dwarfs_the_rest(void **state)
{
    (void)state;
    double losses[100];
    for (int i = 0; i < 100; i++)
        losses[i] = 2 - 0.001 * i;
    Report report = {.n_runs = 1, .baseline = -1};
    ReportRun run = make_run(losses, 100);
    report.runs = &run;
    assert_ok(report_curves_smooth(&run, 1));
    report_fit_choose(&report);
    assert_false(report.skip_start);
    assert_false(report_fit_losses(&report).is_given);
    run.points[0].smoothed = 12;
    report_fit_choose(&report);
    assert_true(report.skip_start);
    ReportFit fit = report_fit_losses(&report);
    assert_true(fit.is_given && fit.low < 1.901 && fit.high > 1.99 && fit.high < 2.1);
    report_run_release(&run);
}

static void test_colours_follow_the_share_of_the_cache(void **state)
{
    (void)state;
    char full[COLOR_BYTES], third[COLOR_BYTES], eighth[COLOR_BYTES], less[COLOR_BYTES];
    report_color(full, 1, false);
    report_color(third, 0.3125, false);
    report_color(eighth, 0.125, false);
    report_color(less, 0.03, false);
    assert_string_equal(full, "#1b1044");
    assert_string_equal(eighth, "#5fbf8a");
    assert_string_equal(less, eighth);
    assert_true(strcmp(third, full) != 0 && strcmp(third, eighth) != 0);
    report_color(full, 1, true);
    assert_string_equal(full, "#f4f1ff");
}

static void test_one_bit_is_a_difference(void **state)
{
    (void)state;
    const double losses[] = {0.1, 0.2, 0.3};
    ReportRun a = make_run(losses, 3), b = make_run(losses, 3);
    int n = 0;
    assert_ok(report_assert_equal(&n, &a, &b, false));
    assert_int_equal(n, 3);
    b.points[1].loss = nextafter(0.2, 1);
    assert_fails(FAILED, "step 2: training loss 0.20000000000000001 in run, 0.20000000000000004",
                 report_assert_equal(&n, &a, &b, true));
    b.points[1].loss = 0.2;
    b.n_points = 2;
    assert_fails(FAILED, "step 3: run has a training loss, run has none",
                 report_assert_equal(&n, &a, &b, false));
    assert_ok(report_assert_equal(&n, &a, &b, true));
    assert_int_equal(n, 2);
    report_run_release(&a);
    report_run_release(&b);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    assert_ok(file_write(testing_path(dir, name), text, (int64_t)strlen(text)));
}

static void test_damaged_run_leaves_nothing_behind(void **state)
{
    (void)state;
    char good[PATH_BYTES], bad[PATH_BYTES];
    strcpy(good, testing_dir());
    strcpy(bad, testing_dir());
    const char *run_json =
        "{\"format\":\"mha2mla-run\",\"name\":\"n\",\"attention\":\"original\",\"rope\":\"all\","
        "\"svd\":\"none\",\"d_kv\":0,\"rope_pairs\":0,\"cache_numbers_per_token\":8,"
        "\"original_cache_numbers_per_token\":8,\"steps\":2}";
    write_file(good, "run.json", run_json);
    write_file(good, "metrics.jsonl", "{\"step\":1,\"tokens\":5,\"loss\":2.5}\n");
    write_file(bad, "run.json", run_json);
    write_file(bad, "metrics.jsonl", "{\"step\":1,\"tokens\":5,\"loss\":2.5}\n{\"step\":2}\n");
    Report report = {.within = 0.05};
    char *dirs[] = {good, bad};
    assert_fails(BAD_INPUT, "metrics.jsonl:2: 'tokens' is missing", report_read(&report, dirs, 2));
    assert_null(report.runs);
    assert_ok(report_read(&report, dirs, 1));
    assert_int_equal(report.runs[0].state, RUN_STOPPED);
    report_release(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smoothing_is_narrow_at_the_start_and_one_sided_at_the_end),
        cmocka_unit_test(test_smoothing_steps_over_points_without_a_loss),
        cmocka_unit_test(test_gap_is_to_the_baseline_at_the_same_tokens),
        cmocka_unit_test(test_validation_counts_where_there_is_one),
        cmocka_unit_test(test_validation_sets_are_not_compared_with_each_other),
        cmocka_unit_test(test_within_counts_from_where_the_gap_stays_small),
        cmocka_unit_test(test_thinning_keeps_ends_and_extremes),
        cmocka_unit_test(test_axes_skip_a_start_that_dwarfs_the_rest),
        cmocka_unit_test(test_colours_follow_the_share_of_the_cache),
        cmocka_unit_test(test_one_bit_is_a_difference),
        cmocka_unit_test(test_damaged_run_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
