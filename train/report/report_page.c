// report.html: the page of train/report/page/ with the data put in as JSON. The page's script reads
// the members by the names given here. Points are written by columns, whose names then stand in the
// file once.
#include "train/report/report.h"
#include "train/report/report_json.h"
#include "train/report/report_look.h"
#include "train/report/report_scores.h"
#include "train/report/report_settings.h"
#include "train/report/report_varied.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern const char report_template[]; // made by train/report/page/embed.cmake

static const char data_mark[] = "@DATA@";

// A point as the members of the columns, in the order of `point_columns`.
enum { POINT_COLUMNS = 9 };
static const char *const point_columns[POINT_COLUMNS] = {
    "step", "tokens", "loss", "smoothed", "gap", "valid_loss", "valid_gap", "lr", "is_earlier_set"};

static bool append_point(json_t *const columns[POINT_COLUMNS], const ReportRun *run,
                         const RunPoint *point)
{
    json_t *const values[POINT_COLUMNS] = {
        json_integer(point->step),
        json_integer(point->tokens),
        real_or_null(point->loss),
        real_or_null(point->smoothed),
        real_or_null(point->gap),
        real_or_null(point->valid_loss),
        real_or_null(point->valid_gap),
        real_or_null(point->lr),
        json_boolean(report_run_is_earlier_set(run, point)),
    };
    bool is_done = true;
    for (int c = 0; c < POINT_COLUMNS; c++)
        is_done = json_array_append_new(columns[c], values[c]) == 0 && is_done;
    return is_done;
}

static bool set_points(json_t *object, const ReportRun *run)
{
    json_t *points = json_object(), *columns[POINT_COLUMNS];
    bool is_done = json_object_set_new(object, "points", points) == 0;
    for (int c = 0; c < POINT_COLUMNS && is_done; c++) {
        columns[c] = json_array();
        is_done = json_object_set_new(points, point_columns[c], columns[c]) == 0;
    }
    for (int i = 0; i < run->n_points && is_done; i++)
        if (run->points[i].is_drawn)
            is_done = append_point(columns, run, &run->points[i]);
    return is_done;
}

static bool set_summary(json_t *object, const RunSummary *sum)
{
    json_t *summary = json_object();
    if (json_object_set_new(object, "summary", summary) != 0)
        return false;
    return set_bool(summary, "is_validation", sum->is_validation) &&
           set_bool(summary, "is_gap_of_validation", sum->is_gap_of_validation) &&
           set_real(summary, "converted", sum->converted) && set_real(summary, "best", sum->best) &&
           set_real(summary, "final", sum->final) && set_real(summary, "gap", sum->gap) &&
           set_int(summary, "gap_tokens", sum->gap_tokens) &&
           (isnan(sum->gap) ? json_object_set_new(summary, "within_tokens", json_null()) == 0
                            : set_int(summary, "within_tokens", sum->within_tokens));
}

static bool set_resumed(json_t *object, const ReportRun *run)
{
    json_t *resumed = json_array();
    bool is_done = json_object_set_new(object, "resumed", resumed) == 0;
    for (int i = 0; i < run->n_resumed && is_done; i++)
        is_done = json_array_append_new(resumed, json_integer(run->resumed[i])) == 0;
    return is_done;
}

// A directory's name can be any bytes; the page names it as far as it is UTF-8.
static bool set_dir(json_t *object, const char *dir)
{
    json_t *text = json_string(dir);
    return json_object_set_new(object, "dir", text != NULL ? text : json_string("?")) == 0;
}

// Both colours of the run, for white and for dark screens: the page chooses by the reader's
// setting.
static bool set_look(json_t *object, const Report *report, int place)
{
    const ReportRun *run = &report->runs[place];
    static const char *const states[] = {
        [RUN_DONE] = "done", [RUN_RUNNING] = "running", [RUN_STOPPED] = "stopped"};
    char state[STATE_BYTES], varied[VARIED_BYTES];
    report_describe_state(state, report, place);
    report_varied_describe(varied, report, place);
    return set_text(object, "label", run->label) && set_dir(object, run->dir) &&
           set_text(object, "color", run->color) &&
           set_text(object, "color_on_dark", run->color_on_dark) &&
           set_int(object, "dash", run->dash) && set_text(object, "varied_text", varied) &&
           set_text(object, "state", states[run->state]) && set_text(object, "state_text", state);
}

// The varied keys that the table has no column for otherwise: [{"key": "optim.lr", "head": "lr"}].
static bool set_varied_keys(json_t *root, const Report *report)
{
    char look[LOOK_TEXT_BYTES];
    json_t *list = json_array();
    bool is_done = json_object_set_new(root, "varied", list) == 0;
    for (int v = 0; v < report->n_varied && is_done; v++)
        if (!report_varied_is_shape(report->varied[v]))
            is_done =
                json_array_append_new(list, json_pack("{s:s, s:s}", "key", report->varied[v],
                                                      "head", report_varied_head(report, v))) == 0;
    report_look_describe(look, report);
    return is_done && set_text(root, "look", look);
}

// A run's values of them, by key.
static bool set_varied(json_t *object, const Report *report, int place)
{
    json_t *values = json_object();
    bool is_done = json_object_set_new(object, "varied", values) == 0;
    for (int v = 0; v < report->n_varied && is_done; v++) {
        char buffer[VARIED_TEXT_BYTES];
        const char *key = report->varied[v];
        const char *text = report_varied_text(buffer, &report->runs[place], key);
        if (text != NULL && !report_varied_is_shape(key))
            is_done = set_text(values, key, text);
    }
    return is_done;
}

// A text that cannot be made for lack of memory counts as a member that cannot be set.
static bool set_settings(json_t *object, const Report *report, int place)
{
    char *text;
    if (report_settings_describe(&text, report, place) != OK)
        return false;
    const bool is_done = set_text(object, "settings", text);
    free(text);
    return is_done;
}

// The list owns the object from the first line on, so nothing is to be released after an error.
static bool append_run(json_t *list, const Report *report, int place)
{
    const ReportRun *run = &report->runs[place];
    json_t *object = json_object();
    if (json_array_append_new(list, object) != 0)
        return false;
    return set_look(object, report, place) && set_settings(object, report, place) &&
           set_varied(object, report, place) && set_bool(object, "is_mla", run->is_mla) &&
           set_int(object, "d_kv", run->d_kv) && set_int(object, "rope_pairs", run->rope_pairs) &&
           set_text(object, "rope", run->rope) && set_text(object, "svd", run->svd) &&
           set_int(object, "cache_bytes", 2 * run->cache) &&
           set_real(object, "share", report_run_share(run)) &&
           set_int(object, "pretraining_tokens", run->pretraining_tokens) &&
           set_int(object, "distill_tokens", run->distill_tokens) &&
           set_real(object, "original_loss",
                    run->is_mla ? report_run_original_valid(run) : report_run_start_valid(run)) &&
           set_int(object, "steps", run->n_steps) &&
           set_int(object, "last_step", report_run_last_step(run)) &&
           set_int(object, "tokens", report_run_tokens(run)) && set_resumed(object, run) &&
           set_real(object, "tokens_per_s", run->tokens_per_s) &&
           set_real(object, "wall_s", run->wall_s) && set_summary(object, &run->summary) &&
           json_object_set_new(object, "tasks",
                               run->evals.old != NULL ? json_incref(run->evals.old)
                                                      : json_object()) == 0 &&
           report_scores_set_curve(object, run) && set_points(object, run);
}

// The tasks of all runs, each once, in the order found.
static bool set_tasks(json_t *root, const Report *report)
{
    json_t *list = json_array(), *seen = json_object();
    bool is_done = json_object_set_new(root, "tasks", list) == 0 && seen != NULL;
    for (int i = 0; i < report->n_runs && is_done; i++) {
        const char *task;
        json_t *value;
        json_object_foreach(report->runs[i].evals.old, task, value)
        {
            if (json_object_get(seen, task) == NULL)
                is_done = is_done && json_array_append_new(list, json_string(task)) == 0 &&
                          json_object_set_new(seen, task, json_true()) == 0;
        }
    }
    json_decref(seen);
    return is_done;
}

// Times are UTC, as reports are compared across machines.
static bool fill_root(json_t *root, const Report *report)
{
    char made[64];
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) == NULL ||
        strftime(made, sizeof made, "%Y-%m-%d %H:%M UTC", &utc) == 0)
        made[0] = '\0';
    json_t *runs = json_array();
    bool is_done =
        json_object_set_new(root, "runs", runs) == 0 && set_text(root, "made", made) &&
        set_real(root, "within", report->within) && set_int(root, "window", report->window) &&
        set_bool(root, "log_x", report->log_x) && set_bool(root, "log_y", report->log_y) &&
        set_bool(root, "skip_start", report->skip_start) &&
        set_bool(root, "is_thinned", report->is_thinned) && set_tasks(root, report) &&
        report_scores_set(root, report) && set_varied_keys(root, report) &&
        (report->baseline >= 0 ? set_int(root, "baseline", report->baseline)
                               : json_object_set_new(root, "baseline", json_null()) == 0);
    for (int i = 0; i < report->n_runs && is_done; i++)
        is_done = append_run(runs, report, i);
    return is_done;
}

// Inside a script element nothing may look like a tag; in JSON a '<' is always part of a string.
static int write_escaped(const char *bytes, size_t size_bytes, void *out)
{
    for (size_t i = 0; i < size_bytes; i++) {
        if (bytes[i] == '<')
            fputs("\\u003c", out);
        else
            fputc(bytes[i], out);
    }
    return ferror((FILE *)out) ? -1 : 0;
}

// The template is cut at its mark and the JSON written in between; 9 significant digits are more
// than a curve on a screen can show.
Status report_write_page(FILE *out, const Report *report)
{
    const char *mark = strstr(report_template, data_mark);
    CHECK(mark != NULL, "the page has no %s", data_mark);
    json_t *root = json_object();
    if (root == NULL || !fill_root(root, report)) {
        json_decref(root);
        return fail(FAILED, "report.html: no memory for the data of %d runs", report->n_runs);
    }
    fwrite(report_template, 1, (size_t)(mark - report_template), out);
    int error = json_dump_callback(root, write_escaped, out,
                                   JSON_COMPACT | JSON_REAL_PRECISION(9) | JSON_ENCODE_ANY);
    fputs(mark + strlen(data_mark), out);
    json_decref(root);
    if (error != 0 && !ferror(out)) // the file's own error is seen when it is closed
        return fail(FAILED, "report.html: no memory for the data of %d runs", report->n_runs);
    return OK;
}
