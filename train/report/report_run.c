// Reads what other versions of the program wrote, and what a user may have edited: members that
// were added later are optional, and every text that reaches a terminal or a page is checked.
#include "train/report/report_run.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

Status report_run_add_resumed(ReportRun *run, int step)
{
    int n = run->n_resumed;
    for (int i = 0; i < n; i++)
        if (run->resumed[i] == step) // both run.json and metrics.jsonl may have it
            return OK;
    int *resumed = realloc(run->resumed, ((size_t)n + 1) * sizeof *resumed);
    if (resumed == NULL)
        return fail(FAILED, "%s: no memory", run->dir);
    run->resumed = resumed;
    int place = n; // insertion keeps them ascending
    for (; place > 0 && resumed[place - 1] > step; place--)
        resumed[place] = resumed[place - 1];
    resumed[place] = step;
    run->n_resumed = n + 1;
    return OK;
}

// Steps at which a process of the run started, as run.json lists them.
static Status parse_resumed(ReportRun *run, const char *path)
{
    const json_t *list = json_object_get(run->json, "resumed_steps");
    if (!json_has(run->json, "resumed_steps"))
        return OK;
    if (!json_is_array(list))
        return fail(BAD_INPUT, "%s: 'resumed_steps' is not a list of steps", path);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *step = json_array_get(list, i);
        json_int_t value = json_integer_value(step);
        if (!json_is_integer(step) || value < 0 || value > INT32_MAX)
            return fail(BAD_INPUT, "%s: 'resumed_steps' is not a list of steps", path);
        TRY(report_run_add_resumed(run, (int)value));
    }
    return OK;
}

// Missing for a run without validation; its set's name is missing in files of older versions.
static Status parse_original(ReportRun *run, const char *path)
{
    const char *set = "";
    if (!json_has(run->json, "original_valid_loss"))
        return OK;
    TRY(json_get_real(&run->original_loss, run->json, path, "original_valid_loss", -INFINITY,
                      INFINITY));
    if (json_has(run->json, "original_validation_set"))
        TRY(json_get_string(&set, run->json, path, "original_validation_set"));
    snprintf(run->original_set, SET_NAME_BYTES, "%s", set);
    return OK;
}

static bool is_text_or_null(const json_t *value)
{
    return json_is_null(value) ||
           (json_is_string(value) && report_eval_is_printable(json_string_value(value)));
}

static bool is_change(const json_t *change)
{
    const json_t *key = json_object_get(change, "key");
    return json_is_integer(json_object_get(change, "step")) && json_is_string(key) &&
           report_eval_is_printable(json_string_value(key)) &&
           is_text_or_null(json_object_get(change, "old")) &&
           is_text_or_null(json_object_get(change, "new"));
}

// Runs from before run.json had the config are without it.
static Status parse_config(ReportRun *run, const char *path)
{
    const json_t *config = json_object_get(run->json, "config");
    const json_t *changes = json_object_get(run->json, "config_changes");
    const char *key;
    json_t *text; // borrowed
    if (config == NULL)
        return OK;
    bool is_whole = json_is_object(config) && json_is_array(changes);
    json_object_foreach((json_t *)(uintptr_t)config, key, text)
    {
        is_whole = is_whole && json_is_string(text) && is_text_or_null(text) &&
                   report_eval_is_printable(key);
    }
    for (size_t i = 0; is_whole && i < json_array_size(changes); i++)
        is_whole = is_change(json_array_get(changes, i));
    if (!is_whole)
        return fail(BAD_INPUT, "%s: 'config' or 'config_changes' is damaged", path);
    run->config = config;
    run->changes = changes;
    return OK;
}

// Bounds keep what is computed from these from overflowing.
static Status parse_shape(ReportRun *run, const char *path)
{
    const json_t *json = run->json;
    int64_t steps;
    TRY(json_get_int(&run->d_kv, json, path, "d_kv", 0, INT32_MAX));
    TRY(json_get_int(&run->rope_pairs, json, path, "rope_pairs", 0, INT32_MAX));
    if (json_has(json, "latent"))
        TRY(json_get_int(&run->latent, json, path, "latent", 1, INT32_MAX));
    TRY(json_get_int(&run->cache, json, path, "cache_numbers_per_token", 1, INT64_MAX / 2));
    TRY(json_get_int(&run->original_cache, json, path, "original_cache_numbers_per_token", 1,
                     INT64_MAX / 2));
    TRY(json_get_int(&steps, json, path, "steps", 0, INT32_MAX));
    run->n_steps = (int)steps;
    const json_t *distill = json_object_get(json, "distill");
    if (distill != NULL) {
        TRY(json_get_int(&run->distill_tokens, distill, path, "tokens", 1, INT64_MAX));
        TRY(json_get_int(&run->distill_trained_tokens, distill, path, "trained_tokens", 1,
                         INT64_MAX));
    }
    if (json_has(json, "pretraining_tokens"))
        TRY(json_get_int(&run->pretraining_tokens, json, path, "pretraining_tokens", 1, INT64_MAX));
    return OK;
}

// Texts and lists are borrowed from run->json, which the run owns.
static Status parse_run(ReportRun *run, const char *path)
{
    const char *format, *attention;
    TRY(json_get_string(&format, run->json, path, "format"));
    if (strcmp(format, "mha2mla-run") != 0)
        return fail(BAD_INPUT, "%s: its format is '%.64s', not 'mha2mla-run'", path, format);
    TRY(json_get_string(&run->name, run->json, path, "name"));
    TRY(json_get_string(&attention, run->json, path, "attention"));
    TRY(json_get_string(&run->rope, run->json, path, "rope"));
    TRY(json_get_string(&run->svd, run->json, path, "svd"));
    run->is_mla = strcmp(attention, "mla") == 0;
    if (!run->is_mla && strcmp(attention, "original") != 0)
        return fail(BAD_INPUT, "%s: 'attention' is '%.64s', allowed are mla and original", path,
                    attention);
    if (!report_eval_is_printable(run->name) || !report_eval_is_printable(run->rope) ||
        !report_eval_is_printable(run->svd))
        return fail(BAD_INPUT, "%s: control characters in 'name', 'rope' or 'svd'; is it damaged?",
                    path);
    TRY(parse_shape(run, path));
    TRY(parse_original(run, path));
    TRY(parse_config(run, path));
    return parse_resumed(run, path);
}

// The lock is taken shared and released at once. Where it cannot be taken for another reason (no
// file, a file system without locks) the run is taken for one that no process works on.
static bool is_lock_held(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    bool is_held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return is_held;
}

// A run that is not whole and whose lock is free was killed, or stopped by its time limit.
static Status find_state(ReportRun *run)
{
    char lock[PATH_BYTES];
    TRY(file_join(lock, run->dir, "lock"));
    if (is_lock_held(lock))
        run->state = RUN_RUNNING;
    else
        run->state = report_run_last_step(run) < run->n_steps ? RUN_STOPPED : RUN_DONE;
    return OK;
}

Status report_run_read(ReportRun *out, const char *dir)
{
    char path[PATH_BYTES], metrics[PATH_BYTES];
    TRY(file_join(path, dir, "run.json"));
    TRY(file_join(metrics, dir, "metrics.jsonl"));
    if (!file_exists(path))
        return fail(BAD_INPUT, "%s: not a run directory, run.json is missing", dir);
    ReportRun run = {.dir = dir, .original_loss = NAN};
    TRY(json_read(&run.json, path));
    Status status;
    TRY_GOTO(release_run, parse_run(&run, path));
    TRY_GOTO(release_run, report_run_read_metrics(&run, metrics));
    TRY_GOTO(release_run, find_state(&run));
    TRY_GOTO(release_run, report_evals_read(&run.evals, dir));
    *out = run;
    return OK;
release_run:
    report_run_release(&run);
    return status;
}

static void release_task_points(ReportRun *run)
{
    for (int i = 0; i < run->n_task_points; i++)
        json_decref(run->task_points[i].scores);
    free(run->task_points);
}

void report_run_release(ReportRun *run)
{
    json_decref(run->json);
    report_evals_release(&run->evals);
    release_task_points(run);
    free(run->points);
    free(run->valid_sets);
    free(run->resumed);
    free(run->label);
    *run = (ReportRun){0};
}

int report_run_last_step(const ReportRun *run)
{
    return run->n_points > 0 ? run->points[run->n_points - 1].step : 0;
}

int64_t report_run_tokens(const ReportRun *run)
{
    return run->n_points > 0 ? run->points[run->n_points - 1].tokens : 0;
}

// On any set: for the table, which has a note where the set has changed.
double report_run_last_valid(const ReportRun *run)
{
    for (int i = run->n_points - 1; i >= 0; i--)
        if (!isnan(run->points[i].valid_loss))
            return run->points[i].valid_loss;
    return NAN;
}

// The model as converted, on the newest set. A step may have two points, one for each set.
double report_run_start_valid(const ReportRun *run)
{
    for (int i = 0; i < run->n_points && run->points[i].step == 0; i++)
        if (run->points[i].valid_set == run->newest_set)
            return run->points[i].valid_loss;
    return NAN;
}

// NaN where the original was measured on another set than the newest.
double report_run_original_valid(const ReportRun *run)
{
    if (run->newest_set >= 0 &&
        !report_run_is_same_set(run->original_set, run->valid_sets[run->newest_set]))
        return NAN;
    return run->original_loss;
}

// A name that is not known counts as any set.
bool report_run_is_same_set(const SetName a, const SetName b)
{
    return a[0] == '\0' || b[0] == '\0' || strcmp(a, b) == 0;
}

double report_run_share(const ReportRun *run)
{
    return (double)run->cache / (double)run->original_cache;
}
