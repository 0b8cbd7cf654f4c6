// What runs vary, and the colours and dashes that tell it apart, of runs written by hand.
#include "tests/support/testing.h"

#include "train/report/report_look.h"
#include "train/report/report_varied.h"

#include <stdlib.h>
#include <string.h>

// A run as report_run_read() leaves it; its config is `config`, or NULL for an older one.
static ReportRun run_of(const char *config, const char *rope, int d_kv, int cache)
{
    ReportRun run = {.is_mla = d_kv > 0,
                     .rope = rope,
                     .svd = d_kv > 0 ? "joint" : "none",
                     .d_kv = d_kv,
                     .rope_pairs = d_kv > 0 ? 4 : 0,
                     .cache = cache,
                     .original_cache = 640};
    if (config != NULL) {
        run.json = json_pack("{s:o}", "config", json_loads(config, 0, NULL));
        run.config = json_object_get(run.json, "config");
        assert_non_null(run.config);
    }
    return run;
}

static void look(Report *report, ReportRun *runs, int n_runs)
{
    *report = (Report){.runs = runs, .n_runs = n_runs, .baseline = -1};
    report_varied_find(report);
    report_look_choose(report);
}

static void release(ReportRun *runs, int n_runs)
{
    for (int i = 0; i < n_runs; i++)
        json_decref(runs[i].json);
}

static void expect_text(const Report *report, int place, const char *expected)
{
    char text[VARIED_BYTES];
    report_varied_describe(text, report, place);
    assert_string_equal(text, expected);
}

static void expect_look(const Report *report, const char *expected)
{
    char text[LOOK_TEXT_BYTES];
    report_look_describe(text, report);
    assert_string_equal(text, expected);
}

static void test_cache_sizes_alone_are_coloured_by_their_share(void **state)
{
    (void)state;
    ReportRun runs[] = {run_of(NULL, "all", 0, 640), run_of(NULL, "2-norm", 16, 200),
                        run_of(NULL, "2-norm", 8, 120), run_of(NULL, "2-norm", 8, 120)};
    Report report;
    look(&report, runs, 4);
    char color[COLOR_BYTES];
    report_color(color, 0.3125, false);
    assert_string_equal(runs[0].color, "#1b1044");
    assert_string_equal(runs[0].color_on_dark, "#f4f1ff");
    assert_string_equal(runs[1].color, color);
    assert_string_equal(runs[2].color, runs[3].color);
    assert_int_equal(runs[2].dash, 1);
    assert_int_equal(runs[3].dash, 2); // twins
    assert_int_equal(report.n_varied, 1);
    assert_string_equal(report.varied[0], "model.convert.d_kv");
    expect_text(&report, 1, "");
    expect_look(&report, "");
}

// A grid and a run of another sweep: the same combination has the same dash at each size.
static void test_a_grid_has_colours_for_sizes_and_dashes_for_the_rest(void **state)
{
    (void)state;
    const char *const low = "{\"optim.lr\": \"1.0e-4\"}", *const high =
                                                              "{\"optim.lr\": \"2.0e-4\"}";
    ReportRun runs[] = {run_of(low, "2-norm", 16, 200), run_of(high, "2-norm", 16, 200),
                        run_of(high, "2-norm", 8, 120), run_of(low, "2-norm", 8, 120),
                        run_of(low, "high", 8, 120)};
    Report report;
    look(&report, runs, 5);
    const int dashes[] = {1, 2, 2, 1, 3};
    for (int i = 0; i < 5; i++)
        assert_int_equal(runs[i].dash, dashes[i]);
    assert_string_equal(runs[0].color, runs[1].color);
    assert_string_equal(runs[2].color, runs[4].color);
    assert_string_not_equal(runs[0].color, runs[2].color);
    expect_text(&report, 1, "rope 2-norm, lr 2.0e-4");
    expect_look(&report, "Colours stand for the share of the KV cache, dashes for rope, lr.");
    release(runs, 5);
}

static void test_strategies_at_one_size_have_colours_without_order(void **state)
{
    (void)state;
    ReportRun runs[] = {run_of(NULL, "all", 0, 640), run_of(NULL, "high", 8, 120),
                        run_of(NULL, "low", 8, 120), run_of(NULL, "uniform", 8, 120),
                        run_of(NULL, "high", 8, 120)};
    runs[4].svd = "split";
    Report report;
    look(&report, runs, 5);
    char color[COLOR_BYTES];
    for (int i = 1; i < 4; i++) {
        report_color_of_group(color, i - 1, false);
        assert_string_equal(runs[i].color, color);
        report_color_of_group(color, i - 1, true);
        assert_string_equal(runs[i].color_on_dark, color);
        assert_int_equal(runs[i].dash, 1);
    }
    assert_string_equal(runs[4].color, runs[1].color);
    assert_int_equal(runs[4].dash, 2);
    assert_string_equal(runs[0].color, "#1b1044");
    expect_text(&report, 0, "");
    expect_text(&report, 4, "rope high, svd split");
    expect_look(&report, "Colours stand for rope, dashes for svd.");
}

// In the order of the numbers and not of the runs; the seed is the last that gets a colour.
static void test_numbers_are_coloured_along_the_scale(void **state)
{
    (void)state;
    ReportRun runs[] = {
        run_of("{\"run.seed\": \"1\", \"optim.lr\": \"5.0e-4\"}", "2-norm", 8, 120),
        run_of("{\"run.seed\": \"1\", \"optim.lr\": \"1.0e-4\"}", "2-norm", 8, 120),
        run_of("{\"run.seed\": \"2\", \"optim.lr\": \"1.0e-3\"}", "2-norm", 8, 120)};
    Report report;
    look(&report, runs, 3);
    char first[COLOR_BYTES], last[COLOR_BYTES];
    report_color_at(first, 0.35, false);
    report_color_at(last, 1, false);
    assert_string_equal(runs[1].color, first);
    assert_string_equal(runs[2].color, last);
    assert_int_equal(report.n_varied, 2);
    assert_string_equal(report.varied[1], "run.seed");
    assert_int_equal(runs[2].dash, 2);
    release(runs, 3);
}

// Converted runs and originals are compared among themselves, and only in what has an effect.
static void test_what_all_converted_runs_have_is_not_varied(void **state)
{
    (void)state;
    ReportRun runs[] = {
        run_of("{\"optim.lr\": \"1\", \"log.every\": \"1\"}", "all", 0, 640),
        run_of("{\"optim.lr\": \"2\", \"log.every\": \"5\", \"data.sources[0].weight\": \"1.0\"}",
               "2-norm", 8, 120),
        run_of("{\"optim.lr\": \"2\", \"log.every\": \"7\", \"train.steps\": \"9\"}", "2-norm", 8,
               120),
        run_of(NULL, "2-norm", 8, 120)};
    Report report;
    look(&report, runs, 4);
    assert_int_equal(report.n_varied, 0);
    release(runs, 4);
    ReportRun originals[] = {run_of("{\"optim.lr\": \"1\"}", "all", 0, 640),
                             run_of("{\"optim.lr\": \"2\"}", "all", 0, 640)};
    look(&report, originals, 2);
    assert_int_equal(report.n_varied, 1);
    expect_text(&report, 1, "lr 2");
    assert_string_not_equal(originals[0].color, originals[1].color);
    release(originals, 2);
}

// At most MAX_VARIED keys, and a head that two would share is the whole key.
static void test_heads_differ_and_keys_are_few(void **state)
{
    (void)state;
    ReportRun runs[] = {
        run_of("{\"a.x\": \"1\", \"b.x\": \"1\", \"c\": \"1\", \"d\": \"1\", \"e\": \"1\", \"f\": "
               "\"1\", \"g\": \"1\", \"h\": \"1\", \"i\": \"1\", \"j\": \"1\"}",
               "2-norm", 8, 120),
        run_of("{}", "2-norm", 8, 120)};
    Report report;
    look(&report, runs, 2);
    assert_int_equal(report.n_varied, MAX_VARIED);
    assert_string_equal(report_varied_head(&report, 0), "a.x");
    assert_string_equal(report_varied_head(&report, 1), "b.x");
    assert_string_equal(report_varied_head(&report, 2), "c");
    expect_text(&report, 1, "a.x none, b.x none, c none, d none, e none, f none, g none, h none");
    release(runs, 2);
}

// The page's JSON takes UTF-8 alone.
static void test_long_texts_are_cut_between_characters(void **state)
{
    (void)state;
    char config[1200], text[VARIED_BYTES];
    for (int shift = 0; shift < 4; shift++) {
        int n = snprintf(config, sizeof config, "{\"model.base\": \"%.*s", shift, "abc");
        for (int i = 0; i < 300; i++)
            n += snprintf(config + n, sizeof config - (size_t)n, "\xe6\xa8\xa1");
        snprintf(config + n, sizeof config - (size_t)n, "\"}");
        ReportRun runs[] = {run_of(config, "2-norm", 8, 120),
                            run_of("{\"model.base\": \"\"}", "2-norm", 8, 120)};
        Report report;
        look(&report, runs, 2);
        report_varied_describe(text, &report, 0);
        assert_true(strlen(text) > VARIED_BYTES - 5);
        json_t *whole = json_string(text);
        assert_non_null(whole);
        json_decref(whole);
        release(runs, 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache_sizes_alone_are_coloured_by_their_share),
        cmocka_unit_test(test_a_grid_has_colours_for_sizes_and_dashes_for_the_rest),
        cmocka_unit_test(test_strategies_at_one_size_have_colours_without_order),
        cmocka_unit_test(test_numbers_are_coloured_along_the_scale),
        cmocka_unit_test(test_what_all_converted_runs_have_is_not_varied),
        cmocka_unit_test(test_heads_differ_and_keys_are_few),
        cmocka_unit_test(test_long_texts_are_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
