// mha2mla compare: runs side by side, from the run.json and metrics.jsonl in their directories: as
// a table here, as a report with --out, or as an assertion that two runs had the same losses.
#include "train/cli/cmd_compare.h"

#include "base/log.h"
#include "train/cli/command/command.h"
#include "train/report/report.h"
#include "train/report/report_equal.h"
#include "train/report/report_scores.h"
#include "train/report/report_settings.h"
#include "train/report/report_varied.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct CompareOptions {
    const char *out, *baseline;
    double within;  // nats; NOT_GIVEN
    int64_t smooth; // steps; 0: not given
    int log;        // a LogAxes, or NOT_GIVEN
    bool assert_equal, common;
} CompareOptions;

typedef enum LogAxes { LOG_X, LOG_Y, LOG_XY } LogAxes;

// Options of the report that are given without --out are refused, so a default must be told apart
// from the same value given.
enum { NOT_GIVEN = -1 };

static const double DEFAULT_WITHIN = 0.05;

static void print_loss(double loss)
{
    if (isnan(loss))
        printf("  %9s", "-");
    else
        printf("  %9.4f", loss);
}

// Names of runs in a grid are long.
static int label_columns(const Report *report)
{
    size_t widest = 24;
    for (int i = 0; i < report->n_runs; i++)
        if (strlen(report->runs[i].label) > widest)
            widest = strlen(report->runs[i].label);
    return widest < 64 ? (int)widest : 64;
}

// What the runs vary beside the conversion's shape, which has columns of its own: a column as wide
// as its longest text, up to a limit.
enum { MAX_VARIED_COLUMNS = 24 };

static int varied_columns(const Report *report, int which)
{
    size_t widest = strlen(report_varied_head(report, which));
    char buffer[VARIED_TEXT_BYTES];
    for (int i = 0; i < report->n_runs; i++) {
        const char *text = report_varied_text(buffer, &report->runs[i], report->varied[which]);
        if (text != NULL && strlen(text) > widest)
            widest = strlen(text);
    }
    return widest < MAX_VARIED_COLUMNS ? (int)widest : MAX_VARIED_COLUMNS;
}

// `run`: NULL for the names of the keys, which are in the table's second line.
static void print_varied(const Report *report, const ReportRun *run, bool is_blank)
{
    for (int v = 0; v < report->n_varied; v++) {
        char buffer[VARIED_TEXT_BYTES];
        if (report_varied_is_shape(report->varied[v]))
            continue;
        const char *text = run != NULL ? report_varied_text(buffer, run, report->varied[v])
                                       : report_varied_head(report, v);
        printf("  %-*.*s", varied_columns(report, v), MAX_VARIED_COLUMNS,
               is_blank       ? ""
               : text != NULL ? text
                              : "-");
    }
}

// The loss columns of a run that keeps its attention: it starts with the original's loss and is not
// converted. KV bytes are at 16 bits per number.
static void print_row(const Report *report, const ReportRun *run)
{
    int last_step = report_run_last_step(run);
    printf("%-*s ", label_columns(report), run->label);
    // The shared form's widths are those of a layer.
    if (run->is_mla)
        printf("%5lld %4lld  %-7s  %-5s", (long long)(run->latent > 0 ? run->latent : run->d_kv),
               (long long)run->rope_pairs, run->rope, run->latent > 0 ? "shared" : run->svd);
    else
        printf("%5s %4s  %-7s  %-5s", "-", "all", "-", "-");
    print_varied(report, run, false);
    printf("  %8lld  %+8.2f", (long long)run->cache * 2, 100.0 * (report_run_share(run) - 1.0));
    print_loss(run->is_mla ? report_run_original_valid(run) : report_run_start_valid(run));
    print_loss(run->is_mla ? report_run_start_valid(run) : NAN);
    print_loss(last_step > 0 ? report_run_last_valid(run) : NAN);
    printf("  %9.3f", (double)report_run_tokens(run) / 1e6);
    if (run->distill_tokens > 0)
        printf(" + %.3f distilled", (double)run->distill_tokens / 1e6);
    if (last_step < run->n_steps)
        printf("  (step %d of %d)", last_step, run->n_steps);
    putchar('\n');
}

// One line below the table for each run whose settings differ or have changed.
static Status print_settings(const Report *report)
{
    for (int i = 0; i < report->n_runs; i++) {
        char *text;
        TRY(report_settings_describe(&text, report, i));
        if (text[0] != '\0')
            printf("%s: %s\n", report->runs[i].label, text);
        free(text);
    }
    return OK;
}

static Status print_table(const Report *report)
{
    for (int line = 0; line < 2; line++) {
        static const char *const heads[2][11] = {
            {"", "", "RoPE", "", "", "KV bytes", "KV", "loss", "loss", "loss", "tokens"},
            {"run", "d_kv", "pr", "RoPE", "SVD", "/token", "%", "original", "converted", "trained",
             "M"}};
        const char *const *head = heads[line];
        printf("%-*s %5s %4s  %-7s  %-5s", label_columns(report), head[0], head[1], head[2],
               head[3], head[4]);
        print_varied(report, NULL, line == 0);
        printf("  %8s  %8s  %9s  %9s  %9s  %9s\n", head[5], head[6], head[7], head[8], head[9],
               head[10]);
    }
    for (int i = 0; i < report->n_runs; i++)
        print_row(report, &report->runs[i]);
    TRY(print_settings(report));
    return report_scores_print(stdout, report);
}

// For scripts and tests: the exit status is the answer.
static Status assert_equal(const Report *report, bool common)
{
    int n_steps;
    TRY(report_assert_equal(&n_steps, &report->runs[0], &report->runs[1], common));
    printf("equal: %d steps of %s and %s\n", n_steps, report->runs[0].dir, report->runs[1].dir);
    return OK;
}

// The table is printed after the report is prepared, as both show the same baseline.
static Status write_report(Report *report, const char *out, const char *baseline)
{
    TRY(report_prepare(report, baseline));
    TRY(print_table(report));
    TRY(report_write(report, out));
    log_info("report written to %s/report.html", out);
    return OK;
}

// The report is released here, whatever was made of it.
static Status compare(const CompareOptions *options, Report *report, char **dirs, int n_dirs)
{
    TRY(report_read(report, dirs, n_dirs));
    Status status = OK;
    if (options->assert_equal)
        status = assert_equal(report, options->common);
    else if (options->out != NULL)
        status = write_report(report, options->out, options->baseline);
    else
        status = print_table(report);
    report_release(report);
    return status;
}

Status cmd_compare_report(char **dirs, int n_dirs, const char *out)
{
    const CompareOptions options = {.out = out};
    Report report = {.within = DEFAULT_WITHIN};
    return compare(&options, &report, dirs, n_dirs);
}

// Combinations that would silently ignore an option are refused.
static Status check_options(const CompareOptions *options, int n_dirs)
{
    const bool is_drawing = options->baseline != NULL || options->log != NOT_GIVEN ||
                            options->within >= 0 || options->smooth > 0;
    if (options->assert_equal && n_dirs != 2)
        return fail(BAD_INPUT, "compare --assert-equal needs two RUN directories, got %d", n_dirs);
    if (options->assert_equal && options->out != NULL)
        return fail(BAD_INPUT, "compare: --assert-equal and --out are both given; keep one");
    if (options->common && !options->assert_equal)
        return fail(BAD_INPUT, "compare: --common needs --assert-equal");
    if (is_drawing && options->out == NULL)
        return fail(BAD_INPUT, "compare: --within, --baseline, --smooth and --log need --out DIR");
    return OK;
}

static const char *const log_names[] = {[LOG_X] = "x", [LOG_Y] = "y", [LOG_XY] = "xy", NULL};

static const CompareOptions defaults = {.within = NOT_GIVEN, .log = NOT_GIVEN};

static const Option options[] = {
    {"out", OPTION_TEXT, offsetof(CompareOptions, out), "DIR",
     "write report.html, curves.{svg,png,csv,gp} and the scores of evaluations there",
     .files = ANY_DIRECTORY},
    {"within", OPTION_REAL, offsetof(CompareOptions, within), "NATS",
     "the gap to the baseline's loss that counts as closed", 0, 100, .derived = "0.05"},
    {"baseline", OPTION_TEXT, offsetof(CompareOptions, baseline), "RUN",
     "name or directory of the run to compare the others with",
     .derived = "the first run with its original attention", .files = ANY_DIRECTORY},
    {"smooth", OPTION_INT, offsetof(CompareOptions, smooth), "STEPS",
     "smooth the training loss over this many steps", 1, 1000000,
     .derived = "1 % of the run, at least 5"},
    {"log", OPTION_CHOICE, offsetof(CompareOptions, log), "AXES",
     "logarithmic axes of the loss curves", .choices = log_names, .derived = "none"},
    {"assert-equal", OPTION_FLAG, offsetof(CompareOptions, assert_equal), NULL,
     "compare the losses of two runs bit by bit; exit 1 where they differ"},
    {"common", OPTION_FLAG, offsetof(CompareOptions, common), NULL,
     "with --assert-equal: compare only the steps that both runs have"},
};

static Status run(const CommandLine *line)
{
    const CompareOptions *given = line->options;
    TRY(check_options(given, line->n_words));
    Report report = {
        .within = given->within >= 0 ? given->within : DEFAULT_WITHIN,
        .window = (int)given->smooth,
        .log_x = given->log == LOG_X || given->log == LOG_XY,
        .log_y = given->log == LOG_Y || given->log == LOG_XY,
    };
    return compare(given, &report, line->words, line->n_words);
}

const Command cmd_compare = {
    .name = "compare",
    .summary = "show runs side by side: KV cache, loss before and after, their curves",
    .description = "RUN is a run directory. Prints a table; with --out, writes a report with the "
                   "curves of all runs. Runs that are still training, were stopped or resumed are "
                   "drawn up to their last step.",
    COMMAND_OPTIONS(CompareOptions, options, defaults),
    .words = {"RUN", 1, INT_MAX, ANY_DIRECTORY},
    .examples = (const char *const[]){"mha2mla compare runs/demo-baseline runs/demo-dkv8",
                                      "mha2mla compare runs/demo-baseline runs/demo-dkv16 "
                                      "runs/demo-dkv8 --out runs/demo/report",
                                      NULL},
    .run = run,
};
