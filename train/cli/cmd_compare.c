// mha2mla compare: runs side by side, from the run.json and metrics.jsonl in their directories: as
// a table here, as a report with --out, or as an assertion that two runs had the same losses.
#include "base/log.h"
#include "train/cli/options.h"
#include "train/report/report.h"
#include "train/report/report_equal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct CompareOptions {
    const char *out, *baseline, *log, *within;
    int64_t smooth;
    bool assert_equal, common;
} CompareOptions;

static void print_loss(double loss)
{
    if (isnan(loss))
        printf("  %9s", "-");
    else
        printf("  %9.4f", loss);
}

static void print_row(const ReportRun *run)
{
    int last_step = report_run_last_step(run);
    printf("%-24s ", run->label);
    if (run->is_mla)
        printf("%5lld %4lld  %-7s  %-5s", (long long)run->d_kv, (long long)run->rope_pairs,
               run->rope, run->svd);
    else
        printf("%5s %4s  %-7s  %-5s", "-", "all", "-", "-");
    printf("  %8lld  %+8.2f", (long long)run->cache * 2, 100.0 * (report_run_share(run) - 1.0));
    print_loss(run->is_mla ? run->original_loss : report_run_start_valid(run));
    print_loss(run->is_mla ? report_run_start_valid(run) : NAN);
    print_loss(last_step > 0 ? report_run_last_valid(run) : NAN);
    printf("  %9.3f", (double)report_run_tokens(run) / 1e6);
    if (last_step < run->n_steps)
        printf("  (step %d of %d)", last_step, run->n_steps);
    putchar('\n');
}

static void print_table(const Report *report)
{
    printf("%-24s %5s %4s  %-7s  %-5s  %8s  %8s  %9s  %9s  %9s  %9s\n"
           "%-24s %5s %4s  %-7s  %-5s  %8s  %8s  %9s  %9s  %9s  %9s\n",
           "", "", "RoPE", "", "", "KV bytes", "KV", "loss", "loss", "loss", "tokens", "run",
           "d_kv", "pr", "RoPE", "SVD", "/token", "%", "original", "converted", "trained", "M");
    for (int i = 0; i < report->n_runs; i++)
        print_row(&report->runs[i]);
}

static Status assert_equal(const Report *report, bool common)
{
    int n_steps;
    TRY(report_assert_equal(&n_steps, &report->runs[0], &report->runs[1], common));
    printf("equal: %d steps of %s and %s\n", n_steps, report->runs[0].dir, report->runs[1].dir);
    return OK;
}

static Status write_report(Report *report, const CompareOptions *options)
{
    TRY(report_prepare(report, options->baseline));
    print_table(report);
    TRY(report_write(report, options->out));
    log_info("report written to %s/report.html", options->out);
    return OK;
}

static Status compare(const CompareOptions *options, Report *report, char **dirs, int n_dirs)
{
    TRY(report_read(report, dirs, n_dirs));
    Status status = OK;
    if (options->assert_equal)
        status = assert_equal(report, options->common);
    else if (options->out != NULL)
        status = write_report(report, options);
    else
        print_table(report);
    report_release(report);
    return status;
}

static Status set_within(double *out, const char *text)
{
    char *end;
    double within = strtod(text, &end);
    if (end == text || *end != '\0' || !(within >= 0 && within <= 100))
        return fail(BAD_INPUT, "compare: --within is '%.200s', allowed are 0 to 100 (nats)", text);
    *out = within;
    return OK;
}

static Status set_log(Report *report, const char *text)
{
    report->log_x = strcmp(text, "x") == 0 || strcmp(text, "xy") == 0;
    report->log_y = strcmp(text, "y") == 0 || strcmp(text, "xy") == 0;
    if (!report->log_x && !report->log_y)
        return fail(BAD_INPUT, "compare: --log is '%.200s', allowed are x, y and xy", text);
    return OK;
}

static Status check_options(Report *report, const CompareOptions *options, int n_dirs)
{
    bool is_drawing = options->baseline != NULL || options->log != NULL ||
                      options->within != NULL || options->smooth != 0;
    if (n_dirs == 0)
        return fail(BAD_INPUT, "compare needs at least one RUN directory; see mha2mla compare "
                               "--help");
    if (options->assert_equal && n_dirs != 2)
        return fail(BAD_INPUT, "compare --assert-equal needs two RUN directories, got %d", n_dirs);
    if (options->assert_equal && options->out != NULL)
        return fail(BAD_INPUT, "compare: --assert-equal and --out are both given; keep one");
    if (options->common && !options->assert_equal)
        return fail(BAD_INPUT, "compare: --common goes with --assert-equal");
    if (is_drawing && options->out == NULL)
        return fail(BAD_INPUT,
                    "compare: --within, --baseline, --smooth and --log go with --out DIR");
    if (options->within != NULL)
        TRY(set_within(&report->within, options->within));
    if (options->log != NULL)
        TRY(set_log(report, options->log));
    report->window = (int)options->smooth;
    return OK;
}

static Status run_compare(int argc, char **argv)
{
    CompareOptions given = {0};
    const Option options[] = {
        {"out", OPTION_STRING, &given.out, "DIR", "write report.html, curves.{svg,png,csv,gp}", 0,
         0, false},
        {"within", OPTION_STRING, &given.within, "NATS",
         "the gap to the baseline that counts as closed (default 0.05)", 0, 0, false},
        {"baseline", OPTION_STRING, &given.baseline, "RUN",
         "name or directory (default: the first run with its original attention)", 0, 0, false},
        {"smooth", OPTION_INT, &given.smooth, "STEPS",
         "steps in the mean of a smoothed loss (default: 1 % of the run, at least 5)", 1, 1000000,
         false},
        {"log", OPTION_STRING, &given.log, "AXES", "logarithmic axes of the loss: x, y or xy", 0, 0,
         false},
        {"assert-equal", OPTION_FLAG, &given.assert_equal, NULL,
         "exit 1 where the losses of two runs differ in any bit", 0, 0, false},
        {"common", OPTION_FLAG, &given.common, NULL,
         "with --assert-equal: compare only the steps that both runs have", 0, 0, false},
    };
    Arguments rest;
    Report report = {.within = 0.05};
    TRY(options_parse(&rest, &cmd_compare, options, sizeof options / sizeof *options, argc, argv));
    if (rest.help_shown)
        return OK;
    TRY(check_options(&report, &given, rest.n_words));
    return compare(&given, &report, rest.words, rest.n_words);
}

const Command cmd_compare = {
    .name = "compare",
    .summary = "show runs side by side: KV cache, loss before and after, their curves",
    .usage = "RUN... [--out DIR] | --assert-equal A B",
    .example = "mha2mla compare runs/demo-baseline runs/demo-dkv16 runs/demo-dkv8 --out "
               "runs/demo/report",
    .run = run_compare,
};
