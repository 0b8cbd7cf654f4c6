// metrics.jsonl to points: the lines of one step become one point. A resumed run cuts its file
// back; where it could not, a step that is not after the last one forgets what came at or after it.
#include "base/file.h"
#include "train/report/report_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Reader {
    ReportRun *run;
    int capacity;
    double segment_s, earlier_s; // of the process at hand; of those before it
} Reader;

static Status optional_real(double *out, const json_t *line, const char *where, const char *key)
{
    if (!json_has(line, key))
        return OK;
    return json_get_real(out, line, where, key, -INFINITY, INFINITY);
}

static Status add_point(Reader *reader, int step, int64_t tokens)
{
    ReportRun *run = reader->run;
    if (run->n_points == reader->capacity) {
        if (reader->capacity > INT32_MAX / 2)
            return fail(FAILED, "%s: more than %d points", run->dir, reader->capacity);
        int capacity = reader->capacity == 0 ? 256 : 2 * reader->capacity;
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
        .smoothed = NAN,
        .gap = NAN,
        .valid_gap = NAN,
        .is_drawn = true,
    };
    return OK;
}

// Forgets the points from `step` on.
static void cut_back(ReportRun *run, int step)
{
    while (run->n_points > 0 && run->points[run->n_points - 1].step >= step)
        run->n_points--;
}

// The point for a line of this step: the last one, or a new one.
static Status find_point(RunPoint **out, Reader *reader, int step, int64_t tokens, bool is_training,
                         const char *where)
{
    ReportRun *run = reader->run;
    const RunPoint *last = run->n_points > 0 ? &run->points[run->n_points - 1] : NULL;
    bool is_same = last != NULL && last->step == step;
    bool is_taken = is_same && (is_training ? !isnan(last->loss) : !isnan(last->valid_loss));
    if (last != NULL && (step < last->step || is_taken)) {
        TRY(report_run_note_resumed(run, step > 0 ? step - 1 : 0));
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

// Seconds that start again are those of another process.
static void take_time(Reader *reader, double elapsed_s)
{
    if (isnan(elapsed_s))
        return;
    if (elapsed_s < reader->segment_s)
        reader->earlier_s += reader->segment_s;
    reader->segment_s = elapsed_s;
}

static Status take_line(Reader *reader, const json_t *line, const char *where)
{
    int64_t step, tokens;
    TRY(json_get_int(&step, line, where, "step", 0, INT32_MAX));
    TRY(json_get_int(&tokens, line, where, "tokens", 0, INT64_MAX));
    double loss = NAN, valid_loss = NAN, lr = NAN, tokens_per_s = NAN, elapsed_s = NAN;
    TRY(optional_real(&loss, line, where, "loss"));
    TRY(optional_real(&valid_loss, line, where, "valid_loss"));
    TRY(optional_real(&lr, line, where, "lr"));
    TRY(optional_real(&tokens_per_s, line, where, "tokens_per_s"));
    TRY(optional_real(&elapsed_s, line, where, "elapsed_s"));
    if (isnan(loss) && isnan(valid_loss))
        return OK; // of another kind
    RunPoint *point;
    TRY(find_point(&point, reader, (int)step, tokens, !isnan(loss), where));
    if (!isnan(loss)) {
        point->loss = loss;
        point->lr = lr;
        point->tokens_per_s = tokens_per_s;
    }
    if (!isnan(valid_loss))
        point->valid_loss = valid_loss;
    reader->run->n_skipped += json_is_true(json_object_get(line, "skipped"));
    take_time(reader, elapsed_s);
    return OK;
}

static Status read_lines(Reader *reader, const FileMap *map, const char *path)
{
    if (map->size_bytes == 0)
        return OK;
    const char *at = (const char *)map->bytes, *end = at + map->size_bytes;
    for (int number = 1; at < end; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (newline == NULL) // a run that is still going may be in the middle of its last line
            break;
        char where[PATH_BYTES + 32];
        snprintf(where, sizeof where, "%s:%d", path, number);
        json_t *line;
        TRY(json_parse_line(&line, at, newline - at, path, number));
        Status status = take_line(reader, line, where);
        json_decref(line);
        if (status != OK)
            return status;
        at = newline + 1;
    }
    return OK;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static Status take_median_rate(ReportRun *run)
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
    qsort(rates, (size_t)n, sizeof *rates, compare_doubles);
    if (n > 0)
        run->tokens_per_s = 0.5 * (rates[(n - 1) / 2] + rates[n / 2]);
    free(rates);
    return OK;
}

Status report_run_read_metrics(ReportRun *run, const char *path)
{
    FileMap map;
    TRY(file_map(&map, path));
    Reader reader = {.run = run};
    Status status = read_lines(&reader, &map, path);
    file_unmap(&map);
    TRY(status);
    bool is_timed = reader.earlier_s + reader.segment_s > 0;
    run->wall_s = is_timed ? reader.earlier_s + reader.segment_s : NAN;
    return take_median_rate(run);
}
