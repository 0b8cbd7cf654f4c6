// The usual file is cut and nothing more: its lines are in order, and those that stay are its
// beginning. Anything else was made by something else than this program (two files put together, a
// file system that lost a part, an editor) and is put in order in a new file.
#include "train/metrics/metrics_resume.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// In the order of lines of one step.
typedef enum LineKind { LINE_STEP, LINE_VALIDATION, LINE_TASKS } LineKind;

// A line that stays, with the foreign ones (notes, empty lines) between it and the line before.
typedef struct Line {
    int64_t begin, end; // offsets in the file; without the newline
    int64_t number;     // its place among the lines
    int64_t step;
    double elapsed_s; // NaN: has none
    LineKind kind;
    char set[METRICS_SET_BYTES]; // of a validation
} Line;

typedef struct Lines {
    Line *items; // owned
    int64_t n, capacity;
    bool has_validation; // the checkpoint's newest one is among them
} Lines;

// Whether a line will be written again. Two validation sets may have been measured at one step:
// what follows the checkpoint's own is later.
static bool is_later(const Line *line, const Lines *lines, const MetricsStart *start)
{
    if (line->kind != LINE_VALIDATION)
        return line->step > start->step;
    return line->step > start->step || line->step > start->valid_step ||
           (lines->has_validation && line->step == start->valid_step);
}

// false: it is no line of ours.
static bool parse(Line *out, const char *text, int64_t length)
{
    json_t *object = json_loadb(text, (size_t)length, 0, NULL);
    const json_t *step = json_object_get(object, "step");
    const json_t *elapsed = json_object_get(object, "elapsed_s");
    const char *set = json_string_value(json_object_get(object, "validation_set"));
    const bool is_ours = json_is_integer(step);
    if (is_ours) {
        out->step = json_integer_value(step);
        out->kind = json_has(object, "valid_loss") ? LINE_VALIDATION
                    : json_has(object, "tasks")    ? LINE_TASKS
                                                   : LINE_STEP;
        out->elapsed_s = json_is_number(elapsed) ? json_number_value(elapsed) : NAN;
        snprintf(out->set, sizeof out->set, "%s", set != NULL ? set : "");
    }
    json_decref(object);
    return is_ours;
}

static Status append(Lines *lines, Line line, const char *path)
{
    if (lines->n == lines->capacity) {
        const int64_t capacity = lines->capacity > 0 ? 2 * lines->capacity : 1024;
        Line *items = realloc(lines->items, (size_t)capacity * sizeof *items);
        if (items == NULL)
            return fail(FAILED, "%s: no memory for its lines", path);
        lines->items = items;
        lines->capacity = capacity;
    }
    line.number = lines->n;
    lines->items[lines->n++] = line;
    return OK;
}

static Status find_lines(Lines *lines, const FileMap *map, const char *path,
                         const MetricsStart *start)
{
    const char *text = (const char *)map->bytes;
    int64_t begin = 0;
    for (int64_t at = 0; at < map->size_bytes;) {
        const char *newline = memchr(text + at, '\n', (size_t)(map->size_bytes - at));
        const int64_t end = newline != NULL ? newline - text : map->size_bytes;
        Line line = {.begin = begin, .end = end};
        const bool is_ours = parse(&line, text + at, end - at);
        at = end + 1;
        if (!is_ours)
            continue;
        begin = at;
        if (is_later(&line, lines, start))
            continue;
        TRY(append(lines, line, path));
        lines->has_validation = lines->has_validation ||
                                (line.kind == LINE_VALIDATION && line.step == start->valid_step &&
                                 (line.set[0] == '\0' || start->valid_set[0] == '\0' ||
                                  strcmp(line.set, start->valid_set) == 0));
    }
    return OK;
}

// By step, the training before the validation and the evaluation after it, then as they came.
static int in_order(const void *a, const void *b)
{
    const Line *x = a, *y = b;
    if (x->step != y->step)
        return x->step < y->step ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return x->number < y->number ? -1 : 1;
}

static bool is_same_event(const Line *a, const Line *b)
{
    return a->step == b->step && a->kind == b->kind && strcmp(a->set, b->set) == 0;
}

// Of lines that say the same event the last one stays. Validations of one step on several sets
// stand beside each other, so all later lines of the step are looked at.
static void drop_doubled(Lines *lines)
{
    int64_t n = 0;
    for (int64_t i = 0; i < lines->n; i++) {
        bool is_doubled = false;
        for (int64_t j = i + 1;
             j < lines->n && !is_doubled && lines->items[j].step == lines->items[i].step; j++)
            is_doubled = is_same_event(&lines->items[i], &lines->items[j]);
        if (!is_doubled)
            lines->items[n++] = lines->items[i];
    }
    lines->n = n;
}

// Whether the lines are the beginning of the file, up to a newline.
static bool is_beginning(const Lines *lines, const FileMap *map)
{
    int64_t end = 0;
    for (int64_t i = 0; i < lines->n; i++) {
        if (lines->items[i].begin != end)
            return false;
        end = lines->items[i].end + 1;
    }
    return end <= map->size_bytes;
}

static Status replace(const Lines *lines, const FileMap *map, const char *path)
{
    AtomicFile file;
    TRY(file_begin(&file, path));
    for (int64_t i = 0; i < lines->n; i++) {
        const Line *line = &lines->items[i];
        fwrite(map->bytes + line->begin, 1, (size_t)(line->end - line->begin), file.stream);
        fputc('\n', file.stream);
    }
    return file_commit(&file); // which sees an error of the stream
}

static void describe(EarlierMetrics *out, const Lines *lines)
{
    for (int64_t i = 0; i < lines->n; i++) {
        const Line *line = &lines->items[i];
        out->size_bytes += line->end + 1 - line->begin;
        out->last_step = line->step;
        if (!isnan(line->elapsed_s))
            out->elapsed_s = line->elapsed_s;
        if (line->kind == LINE_TASKS)
            out->tasks_step = line->step;
        if (line->kind == LINE_VALIDATION && out->first_valid_set[0] == '\0')
            memcpy(out->first_valid_set, line->set, METRICS_SET_BYTES);
    }
}

Status metrics_resume(EarlierMetrics *out, const char *path, const MetricsStart *start)
{
    FileMap map = {0};
    Lines lines = {0};
    Status status = OK;
    *out = (EarlierMetrics){.tasks_step = -1};
    if (file_exists(path))
        TRY(file_map(&map, path));
    TRY_GOTO(release, find_lines(&lines, &map, path, start));
    const int64_t n_found = lines.n;
    bool is_sorted = true;
    for (int64_t i = 1; i < lines.n; i++)
        is_sorted = is_sorted && in_order(&lines.items[i - 1], &lines.items[i]) < 0;
    if (!is_sorted)
        qsort(lines.items, (size_t)lines.n, sizeof *lines.items, in_order);
    drop_doubled(&lines);
    describe(out, &lines);
    if (!is_sorted || lines.n < n_found)
        log_warn("%s: its lines are not those of one step after the other; they are put in order, "
                 "and of %lld doubled ones the newer stay",
                 path, (long long)(n_found - lines.n));
    if (!is_beginning(&lines, &map))
        TRY_GOTO(release, replace(&lines, &map, path));
release:
    free(lines.items);
    file_unmap(&map);
    return status;
}
