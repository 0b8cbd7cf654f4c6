// From the runs' directories to what the writers need: labels, the baseline, the curves. The order
// in report_prepare() matters: differences to the baseline need its smoothed losses, and points are
// left out of the drawing only after everything has been computed from all of them.
#include "train/report/report.h"

#include "base/file_lock.h"
#include "train/report/report_curves.h"
#include "train/report/report_fit.h"
#include "train/report/report_look.h"
#include "train/report/report_scores.h"
#include "train/report/report_settings.h"
#include "train/report/report_varied.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_DRAWN_OF_A_RUN = 3000,
    MIN_DRAWN_OF_A_RUN = 256,
    MAX_DRAWN = 24000, // points of all runs: the page stays below 2 MB
    MIN_WINDOW = 5,
};

// Among the first n runs, whose labels are final.
static bool is_label_taken(const Report *report, int n, const char *label)
{
    for (int i = 0; i < n; i++)
        if (strcmp(report->runs[i].label, label) == 0)
            return true;
    return false;
}

static bool is_name_shared(const Report *report, int place)
{
    for (int i = 0; i < report->n_runs; i++)
        if (i != place && strcmp(report->runs[i].name, report->runs[place].name) == 0)
            return true;
    return false;
}

// A directory's name can be any bytes; a label is UTF-8 without control characters.
static void clean_label(char *label, size_t name_bytes)
{
    json_t *whole = json_string(label);
    for (char *p = label + name_bytes; *p != '\0'; p++) {
        unsigned char byte = (unsigned char)*p;
        if (byte < ' ' || byte == 0x7f || (whole == NULL && byte >= 0x80))
            *p = '?';
    }
    json_decref(whole);
}

// The name, with the directory where another run has the same name, and with a number where the
// same directory is given twice: the browser's table and gnuplot's key need labels that differ.
static Status set_label(Report *report, int place)
{
    ReportRun *run = &report->runs[place];
    size_t name_bytes = strlen(run->name), size_bytes = name_bytes + strlen(run->dir) + 32;
    char *label = malloc(size_bytes);
    if (label == NULL)
        return fail(FAILED, "%s: no memory", run->dir);
    bool is_shared = is_name_shared(report, place);
    for (int copy = 1; copy == 1 || is_label_taken(report, place, label); copy++) {
        int n = snprintf(label, size_bytes, "%s", run->name);
        if (is_shared)
            n += snprintf(label + n, size_bytes - (size_t)n, " (%s)", run->dir);
        if (copy > 1) // the same directory given twice
            snprintf(label + n, size_bytes - (size_t)n, " #%d", copy);
        clean_label(label, name_bytes);
    }
    run->label = label;
    return OK;
}

// `word` is a run's name or directory; NULL: the first run that kept its attention. -1: there is
// none, which only a given word makes an error.
static Status choose_baseline(Report *report, const char *word)
{
    report->baseline = -1;
    for (int i = report->n_runs - 1; i >= 0; i--) { // backwards: the first match is kept
        const ReportRun *run = &report->runs[i];
        if (word == NULL ? !run->is_mla
                         : strcmp(run->name, word) == 0 || strcmp(run->dir, word) == 0)
            report->baseline = i;
    }
    if (word != NULL && report->baseline < 0)
        return fail(BAD_INPUT, "--baseline is '%.200s', which is no name or directory of the runs",
                    word);
    return OK;
}

Status report_read(Report *report, char **dirs, int n_dirs)
{
    Status status;
    report->runs = calloc((size_t)n_dirs, sizeof *report->runs);
    if (report->runs == NULL)
        return fail(FAILED, "no memory for %d runs", n_dirs);
    for (int i = 0; i < n_dirs; i++) {
        TRY_GOTO(release_runs, report_run_read(&report->runs[i], dirs[i]));
        report->n_runs++;
    }
    for (int i = 0; i < n_dirs; i++)
        TRY_GOTO(release_runs, set_label(report, i));
    report_varied_find(report);
    report_look_choose(report);
    TRY_GOTO(release_runs, choose_baseline(report, NULL));
    report_scores_compare(report);
    return OK;
release_runs:
    report_release(report);
    return status;
}

// A hundredth of the longest run, but enough steps to smooth a short one.
static int choose_window(const Report *report)
{
    int longest = 0;
    for (int i = 0; i < report->n_runs; i++)
        if (report->runs[i].n_points > longest)
            longest = report->runs[i].n_points;
    return longest / 100 > MIN_WINDOW ? longest / 100 : MIN_WINDOW;
}

// Called once, before any writer.
Status report_prepare(Report *report, const char *baseline)
{
    if (baseline != NULL)
        TRY(choose_baseline(report, baseline));
    report_scores_compare(report);
    if (report->window == 0)
        report->window = choose_window(report);
    for (int i = 0; i < report->n_runs; i++)
        TRY(report_curves_smooth(&report->runs[i], report->window));
    report_fit_choose(report);
    int max_points = MAX_DRAWN / report->n_runs;
    if (max_points > MAX_DRAWN_OF_A_RUN)
        max_points = MAX_DRAWN_OF_A_RUN;
    if (max_points < MIN_DRAWN_OF_A_RUN)
        max_points = MIN_DRAWN_OF_A_RUN;
    for (int i = 0; i < report->n_runs; i++) {
        ReportRun *run = &report->runs[i];
        if (report->baseline >= 0 && i != report->baseline)
            report_curves_gaps(run, &report->runs[report->baseline]);
        report_curves_summarize(run, report->within);
        report_curves_thin(run, max_points);
        report->is_thinned = report->is_thinned || run->n_points > max_points;
    }
    return OK;
}

void report_release(Report *report)
{
    for (int i = 0; i < report->n_runs; i++)
        report_run_release(&report->runs[i]);
    free(report->runs);
    report->runs = NULL;
    report->n_runs = 0;
}

// Appends as far as there is room.
static void append(char out[STATE_BYTES], const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void append(char out[STATE_BYTES], const char *format, ...)
{
    size_t n = strlen(out);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out + n, STATE_BYTES - n, format, arguments);
    va_end(arguments);
}

// The run is compared with the baseline, or with the first run where there is none: only what
// differs from it is said.
void report_describe_state(char out[STATE_BYTES], const Report *report, int place)
{
    const ReportRun *run = &report->runs[place];
    const ReportRun *measure = &report->runs[report->baseline >= 0 ? report->baseline : 0];
    out[0] = '\0';
    if (run->state != RUN_DONE)
        append(out, "%s at step %d of %d", run->state == RUN_RUNNING ? "running" : "stopped",
               report_run_last_step(run), run->n_steps);
    if (run->n_steps != measure->n_steps)
        append(out, "%s%d steps where %s has %d", out[0] != '\0' ? ", " : "", run->n_steps,
               report->baseline >= 0 ? "the baseline" : "the first", measure->n_steps);
    const char *start = "settings changed at ";
    for (int step = report_settings_next_change(run, -1); step >= 0;
         step = report_settings_next_change(run, step)) {
        append(out, "%s%s%d", out[0] != '\0' ? ", " : "", start, step);
        start = "";
    }
    for (int i = 0; i < run->n_resumed; i++)
        append(out, "%s%s%d", out[0] != '\0' ? ", " : "", i == 0 ? "resumed at " : "",
               run->resumed[i]);
    if (run->n_skipped > 0)
        append(out, "%s%d step%s skipped", out[0] != '\0' ? ", " : "", run->n_skipped,
               run->n_skipped > 1 ? "s" : "");
}

// ---- writing -----------------------------------------------------------------------------------

typedef Status (*Writer)(FILE *out, const Report *report);

static Status write_csv(FILE *out, const Report *report)
{
    report_write_csv(out, report);
    return OK;
}

static Status write_scores_csv(FILE *out, const Report *report)
{
    report_scores_write_csv(out, report);
    return OK;
}

static Status write_scores_script(FILE *out, const Report *report)
{
    report_scores_write_script(out, report);
    return OK;
}

static Status write_script(FILE *out, const Report *report)
{
    report_write_script(out, report);
    return OK;
}

// Renamed into place when it is whole, so a reader of the directory never sees half a file.
static Status write_file(const Report *report, const char *dir, const char *name, Writer writer)
{
    char path[PATH_BYTES];
    AtomicFile file;
    TRY(file_join(path, dir, name));
    if (file_is_dir(path))
        return fail(BAD_INPUT, "%s: is a directory; name another with --out", path);
    TRY(file_begin(&file, path));
    Status status;
    TRY_GOTO(abandon_file, writer(file.stream, report));
    return file_commit(&file);
abandon_file:
    file_abandon(&file);
    return status;
}

static bool has_evals(const Report *report)
{
    return report_scores_has(report, EVAL_TASKS) || report_scores_has(report, EVAL_LONGBENCH);
}

static Status write_scores(const Report *report, const char *dir)
{
    // Files of an earlier report would tell of other runs.
    static const char *const pictures[] = {"scores.gp", "scores.svg", "scores.png"};
    TRY(report_scores_has_any(report) ? write_file(report, dir, "tasks.csv", write_scores_csv)
                                      : file_remove(dir, "tasks.csv"));
    if (has_evals(report))
        return write_file(report, dir, "scores.gp", write_scores_script);
    for (size_t i = 0; i < sizeof pictures / sizeof pictures[0]; i++)
        TRY(file_remove(dir, pictures[i]));
    return OK;
}

Status report_write(const Report *report, const char *dir)
{
    FileLock lock = {0};
    Status status;
    TRY(file_lock_directory(&lock, dir)); // the files of two reports would be mixed
    // gnuplot last: without it everything but the pictures is there.
    TRY_GOTO(unlock, write_file(report, dir, "curves.csv", write_csv));
    TRY_GOTO(unlock, write_scores(report, dir));
    TRY_GOTO(unlock, write_file(report, dir, "curves.gp", write_script));
    TRY_GOTO(unlock, write_file(report, dir, "report.html", report_write_page));
    TRY_GOTO(unlock, report_draw(dir, "curves"));
    if (has_evals(report))
        status = report_draw(dir, "scores");
unlock:
    file_lock_remove(&lock);
    return status;
}
