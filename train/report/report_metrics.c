// metrics.jsonl to points: the lines of one step become one point, or two where it was validated on
// two sets. A resumed run cuts its file back; where it could not, a step that is not after the last
// one removes the points at or after it.
#include "base/file.h"
#include "base/median.h"
#include "train/report/report_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Reader {
    ReportRun *run;
    int capacity;
    double segment_s, earlier_s; // elapsed_s of the current process, and of those before it
} Reader;

// *out keeps its value, NaN, where the line does not have the member.
static Status optional_real(double *out, const json_t *line, const char *where, const char *key)
{
    if (!json_has(line, key))
        return OK;
    return json_get_real(out, line, where, key, -INFINITY, INFINITY);
}

// Capacity doubles: a long run has 10^5 points and more.
static Status add_point(Reader *reader, int step, int64_t tokens)
{
    ReportRun *run = reader->run;
    if (run->n_points == reader->capacity) {
        if (reader->capacity > INT32_MAX / 2)
            return fail(FAILED, "%s: more than %d points", run->dir, reader->capacity);
        int capacity = reader->capacity == 0 ? 256 : 2 * reader->capacity; // points
        RunPoint *points = realloc(run->points, (size_t)capacity * sizeof *points);
        if (points == NULL)
            return fail(FAILED, "%s: no memory for %d points", run->dir, capacity);
        run->points = points;
        reader->capacity = capacity;
    }
    run->points[run->n_points++] = (RunPoint){
        .step = step,
        .tokens = tokens,
        .loss = NAN,
        .lr = NAN,
        .tokens_per_s = NAN,
        .valid_loss = NAN,
        .valid_set = -1,
        .smoothed = NAN,
        .gap = NAN,
        .valid_gap = NAN,
        .is_drawn = true,
    };
    return OK;
}

// Removes the points from `step` on: steps ascend, so these are the last ones.
static void cut_back(ReportRun *run, int step)
{
    while (run->n_task_points > 0 && run->task_points[run->n_task_points - 1].step >= step)
        json_decref(run->task_points[--run->n_task_points].scores);
    while (run->n_points > 0 && run->points[run->n_points - 1].step >= step)
        run->n_points--;
}

// The place of a set among the run's, where it is put if it is new. A line without a name, from an
// older program, is of the set before it, and a name after such lines is theirs.
static Status find_set(int *out, ReportRun *run, const char *name)
{
    const int n = run->n_valid_sets;
    if (n > 0 && run->valid_sets[n - 1][0] == '\0')
        snprintf(run->valid_sets[n - 1], SET_NAME_BYTES, "%s", name);
    *out = n - 1;
    if (n > 0 && name[0] == '\0')
        return OK;
    for (int i = 0; i < n; i++) {
        *out = i;
        if (strcmp(run->valid_sets[i], name) == 0)
            return OK;
    }
    SetName *sets = realloc(run->valid_sets, ((size_t)n + 1) * sizeof *sets);
    if (sets == NULL)
        return fail(FAILED, "%s: no memory", run->dir);
    snprintf(sets[n], SET_NAME_BYTES, "%s", name);
    run->valid_sets = sets;
    run->n_valid_sets = n + 1;
    *out = n;
    return OK;
}

// Whether the newest step, if it is this one, has what the line brings.
static bool is_known(const ReportRun *run, int step, bool is_training, int set)
{
    for (int i = run->n_points - 1; i >= 0 && run->points[i].step == step; i--) {
        const RunPoint *point = &run->points[i];
        if ((is_training && !isnan(point->loss)) || (set >= 0 && point->valid_set == set))
            return true;
    }
    return false;
}

// The point for a line of this step: the last one, or a new one. set: of its validation loss, or
// -1.
static Status find_point(RunPoint **out, Reader *reader, int step, int64_t tokens, bool is_training,
                         int set, const char *where)
{
    ReportRun *run = reader->run;
    const RunPoint *last = run->n_points > 0 ? &run->points[run->n_points - 1] : NULL;
    bool is_same = last != NULL && last->step == step;
    const bool is_taken = is_known(run, step, is_training, set);
    // The line of training comes before the validations of its step.
    if (is_same && set >= 0 && last->valid_set >= 0)
        is_same = false; // validated on another set, too
    if (last != NULL && (step < last->step || is_taken)) {
        TRY(report_run_add_resumed(run, step > 0 ? step - 1 : 0));
        cut_back(run, step);
        last = run->n_points > 0 ? &run->points[run->n_points - 1] : NULL;
        is_same = false;
    }
    if (last != NULL && tokens < last->tokens)
        return fail(BAD_INPUT, "%s: 'tokens' is %lld, before it was %lld; is the file damaged?",
                    where, (long long)tokens, (long long)last->tokens);
    if (!is_same)
        TRY(add_point(reader, step, tokens));
    *out = &run->points[run->n_points - 1];
    return OK;
}

static bool is_score(const json_t *value)
{
    const double score = json_number_value(value); // 0 of what is no number
    return json_is_number(value) && score >= 0 && score <= 1;
}

// Takes over a reference to `scores`, which is checked. A step that was evaluated twice keeps the
// later scores.
static Status add_task_point(ReportRun *run, const RunPoint *point, json_t *scores)
{
    const int n = run->n_task_points;
    if (n > 0 && run->task_points[n - 1].step == point->step) {
        json_decref(run->task_points[n - 1].scores);
        run->task_points[n - 1].scores = json_incref(scores);
        return OK;
    }
    TaskPoint *points = realloc(run->task_points, ((size_t)n + 1) * sizeof *points);
    if (points == NULL)
        return fail(FAILED, "%s: no memory", run->dir);
    points[n] = (TaskPoint){point->step, point->tokens, json_incref(scores)};
    run->task_points = points;
    run->n_task_points = n + 1;
    return OK;
}

// {"step": 100, "tokens": 819200, "tasks": {"piqa": 0.55, ..., "average": 0.31}}
static Status parse_tasks(Reader *reader, const json_t *line, int step, int64_t tokens,
                          const char *where)
{
    json_t *tasks = json_object_get(line, "tasks"), *score; // borrowed
    RunPoint *point;
    const char *task;
    if (!json_is_object(tasks))
        return fail(BAD_INPUT, "%s: 'tasks' is no object of scores", where);
    json_object_foreach(tasks, task, score)
    {
        if (!report_eval_is_printable(task) || !is_score(score))
            return fail(BAD_INPUT, "%s: 'tasks': the score of '%.64s' is no number from 0 to 1",
                        where, report_eval_is_printable(task) ? task : "?");
    }
    TRY(find_point(&point, reader, step, tokens, false, -1, where));
    return add_task_point(reader->run, point, tasks);
}

// A program that did not add up elapsed_s over restarts began at 0 again: where it falls, another
// process began.
static void add_time(Reader *reader, double elapsed_s)
{
    if (isnan(elapsed_s))
        return;
    if (elapsed_s < reader->segment_s)
        reader->earlier_s += reader->segment_s;
    reader->segment_s = elapsed_s;
}

// "" for a line of a version that had no names of sets. Names are hexadecimal (train/validation.c).
static Status parse_set(int *out, ReportRun *run, const json_t *line, const char *where)
{
    const char *name = "";
    if (json_has(line, "validation_set"))
        TRY(json_get_string(&name, line, where, "validation_set"));
    const size_t length = strlen(name);
    if (strspn(name, "0123456789abcdef") != length || length >= SET_NAME_BYTES)
        return fail(BAD_INPUT, "%s: 'validation_set' is no name of one, which is hexadecimal",
                    where);
    return find_set(out, run, name);
}

// Only the members that are drawn; what other programs add is ignored.
static Status parse_line(Reader *reader, const json_t *line, const char *where)
{
    int64_t step, tokens;
    TRY(json_get_int(&step, line, where, "step", 0, INT32_MAX));
    TRY(json_get_int(&tokens, line, where, "tokens", 0, INT64_MAX));
    double loss = NAN, valid_loss = NAN, lr = NAN, tokens_per_s = NAN, elapsed_s = NAN;
    // With a teacher the loss is a weighted sum; its cross-entropy compares with other runs.
    TRY(optional_real(&loss, line, where, json_has(line, "ce") ? "ce" : "loss"));
    TRY(optional_real(&valid_loss, line, where, "valid_loss"));
    TRY(optional_real(&lr, line, where, "lr"));
    TRY(optional_real(&tokens_per_s, line, where, "tokens_per_s"));
    TRY(optional_real(&elapsed_s, line, where, "elapsed_s"));
    if (isnan(loss) && isnan(valid_loss) && json_has(line, "tasks"))
        return parse_tasks(reader, line, (int)step, tokens, where);
    if (isnan(loss) && isnan(valid_loss))
        return OK; // not written by this program: others may add lines
    RunPoint *point;
    int set = -1;
    if (!isnan(valid_loss))
        TRY(parse_set(&set, reader->run, line, where));
    TRY(find_point(&point, reader, (int)step, tokens, !isnan(loss), set, where));
    if (!isnan(loss)) {
        point->loss = loss;
        point->lr = lr;
        point->tokens_per_s = tokens_per_s;
    }
    if (!isnan(valid_loss)) {
        point->valid_loss = valid_loss;
        point->valid_set = set;
    }
    reader->run->n_skipped += json_is_true(json_object_get(line, "skipped"));
    add_time(reader, elapsed_s);
    return OK;
}

// From the mapped file: one that grows meanwhile is read up to its size at the time.
static Status read_lines(Reader *reader, const FileMap *map, const char *path)
{
    if (map->size_bytes == 0)
        return OK;
    const char *at = (const char *)map->bytes, *end = at + map->size_bytes;
    for (int number = 1; at < end; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (newline == NULL) // a run that is still training may be in the middle of its last line
            break;
        char where[PATH_BYTES + 32];
        snprintf(where, sizeof where, "%s:%d", path, number);
        json_t *line;
        TRY(json_parse_line(&line, at, newline - at, path, number));
        Status status = parse_line(reader, line, where);
        json_decref(line);
        if (status != OK)
            return status;
        at = newline + 1;
    }
    return OK;
}

// The median, as steps with a checkpoint or on a busy machine are outliers.
static Status set_median_rate(ReportRun *run)
{
    run->tokens_per_s = NAN;
    if (run->n_points == 0)
        return OK;
    double *rates = malloc((size_t)run->n_points * sizeof *rates);
    if (rates == NULL)
        return fail(FAILED, "%s: no memory for %d points", run->dir, run->n_points);
    int n = 0;
    for (int i = 0; i < run->n_points; i++)
        if (!isnan(run->points[i].tokens_per_s))
            rates[n++] = run->points[i].tokens_per_s;
    if (n > 0)
        run->tokens_per_s = median_take(rates, n);
    free(rates);
    return OK;
}

// wall_s is the sum over all processes of the run.
Status report_run_read_metrics(ReportRun *run, const char *path)
{
    FileMap map;
    TRY(file_map(&map, path));
    Reader reader = {.run = run};
    Status status = read_lines(&reader, &map, path);
    file_unmap(&map);
    TRY(status);
    run->newest_set = -1;
    for (int i = 0; i < run->n_points; i++)
        if (run->points[i].valid_set >= 0)
            run->newest_set = run->points[i].valid_set;
    bool is_timed = reader.earlier_s + reader.segment_s > 0;
    run->wall_s = is_timed ? reader.earlier_s + reader.segment_s : NAN;
    return set_median_rate(run);
}
