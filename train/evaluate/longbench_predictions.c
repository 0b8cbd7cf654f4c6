#define _GNU_SOURCE // fileno
#include "train/evaluate/longbench_predictions.h"

#include "base/json.h"
#include "eval/longbench/longbench_sets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// As many digits as a double has: a score that is read again is the same.
static const size_t line_flags = JSON_COMPACT | JSON_REAL_PRECISION(17);

static const char identity_key[] = "mha2mla";

// ---- lines -------------------------------------------------------------------------------------

static int place(const char *set)
{
    const LongbenchSet *known = longbench_find_set(set);
    return known != NULL ? (int)(known - longbench_sets) : N_LONGBENCH_SETS;
}

static int compare_names(const char *set, int64_t row, const Prediction *other)
{
    int difference = place(set) - place(other->set);
    if (difference == 0)
        difference = strcmp(set, other->set);
    return difference != 0 ? difference : (row > other->row) - (row < other->row);
}

static int compare_predictions(const void *a, const void *b)
{
    const Prediction *first = a;
    return compare_names(first->set, first->row, b);
}

// Items are in no order while answers come; sets have a few hundred rows.
const Prediction *predictions_find(const Predictions *predictions, const char *set, int64_t row)
{
    for (int64_t i = 0; i < predictions->n; i++) {
        const Prediction *item = &predictions->items[i];
        if (item->row == row && strcmp(item->set, set) == 0)
            return item;
    }
    return NULL;
}

// Takes over the reference to a line that was checked.
static Status keep_line(Predictions *predictions, json_t *line, int number)
{
    if (predictions->n == predictions->capacity) {
        const int64_t capacity = predictions->capacity > 0 ? 2 * predictions->capacity : 64;
        Prediction *items = realloc(predictions->items, (size_t)capacity * sizeof *items);
        if (items == NULL) {
            json_decref(line);
            return fail(FAILED, "no memory for %lld predictions", (long long)capacity);
        }
        predictions->items = items;
        predictions->capacity = capacity;
    }
    predictions->items[predictions->n++] =
        (Prediction){.line = line,
                     .set = json_string_value(json_object_get(line, "set")),
                     .row = json_integer_value(json_object_get(line, "row")),
                     .number = number};
    return OK;
}

static Status write_line(FILE *stream, const char *path, const json_t *line)
{
    char *text = json_dumps(line, line_flags);
    if (text == NULL)
        return fail(FAILED, "%s: no memory for a line", path);
    errno = 0;
    const bool is_written = fputs(text, stream) >= 0 && fputc('\n', stream) != EOF;
    free(text);
    if (!is_written || fflush(stream) != 0)
        return fail(FAILED, "%s: write failed: %s", path, strerror(errno));
    return OK;
}

// ---- reading -----------------------------------------------------------------------------------

static bool is_format(const char *key)
{
    return strcmp(key, "format") == 0 || strcmp(key, "version") == 0;
}

// What the file does not say is not compared: predictions that were made elsewhere. It stays as it
// is.
static Status check_identity(Predictions *predictions, const json_t *line, const char *path)
{
    json_t *found = json_object_get(line, identity_key), *value;
    const char *key;
    if (!json_is_object(found))
        return fail(BAD_INPUT,
                    "%s:1: is not the first line of a file of predictions; name another file",
                    path);
    json_object_foreach(predictions->identity, key, value)
    {
        char there[JSON_TEXT_BYTES], here[JSON_TEXT_BYTES];
        const json_t *other = json_object_get(found, key);
        if (json_equal(other, value) || (other == NULL && !is_format(key)))
            continue;
        return fail(BAD_INPUT,
                    "%s: its predictions are of another evaluation: %s is %s there and %s here; "
                    "name another file",
                    path, key, other != NULL ? json_describe(there, other) : "missing",
                    json_describe(here, value));
    }
    json_incref(found);
    json_decref(predictions->identity);
    predictions->identity = found;
    return OK;
}

static Status read_line(Predictions *predictions, const char *bytes, int64_t size, const char *path,
                        int number)
{
    Status status;
    char where[PATH_BYTES + 32];
    const char *set;
    int64_t row;
    json_error_t error;
    snprintf(where, sizeof where, "%s:%d", path, number);
    // A model may write any character, a NUL too.
    json_t *line = json_loadb(bytes, (size_t)size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (line == NULL)
        return fail(BAD_INPUT, "%s:%d: not valid JSON: %s", where, error.column, error.text);
    if (number == 1) {
        status = check_identity(predictions, line, path);
        goto release;
    }
    TRY_GOTO(release, json_get_line(&set, line, where, "set"));
    TRY_GOTO(release, json_get_int(&row, line, where, "row", 0, INT64_MAX));
    if (!json_is_string(json_object_get(line, "pred"))) {
        status = fail(BAD_INPUT, "%s: has no text 'pred', the prediction", where);
        goto release;
    }
    const Prediction *other = predictions_find(predictions, set, row);
    if (other != NULL) {
        status = fail(BAD_INPUT, "%s: row %lld of %s is also in line %d; remove one of them", where,
                      (long long)row, other->set, other->number);
        goto release;
    }
    return keep_line(predictions, line, number);
release:
    json_decref(line);
    return status;
}

// Reads whole lines; *size are their bytes.
static Status read_lines(Predictions *predictions, int64_t *size, const char *path)
{
    FileMap map;
    Status status = OK;
    int64_t at = 0;
    int number = 0;
    TRY(file_map(&map, path));
    while (at < map.size_bytes && status == OK) {
        const char *line = (const char *)map.bytes + at;
        const char *line_end = memchr(line, '\n', (size_t)(map.size_bytes - at));
        if (line_end == NULL)
            break;
        status = read_line(predictions, line, line_end - line, path, ++number);
        at += line_end - line + 1;
    }
    file_unmap(&map);
    *size = at;
    return status;
}

// The file is the lines [size_bytes] that were read, or begins with the identity.
static Status open_stream(Predictions *predictions, int64_t size_bytes)
{
    const char *path = predictions->path;
    predictions->stream = fopen(path, "ae");
    if (predictions->stream == NULL)
        return fail(FAILED, "%s: cannot be written: %s", path, strerror(errno));
    if (ftruncate(fileno(predictions->stream), size_bytes) != 0)
        return fail(FAILED, "%s: cannot be cut: %s", path, strerror(errno));
    if (size_bytes > 0)
        return OK;
    json_t *line = json_pack("{s:O}", identity_key, predictions->identity);
    const Status status = write_line(predictions->stream, path, line);
    json_decref(line);
    return status;
}

Status predictions_open(Predictions *out, const char *path, json_t *identity, const char *host)
{
    Status status;
    char lock[PATH_BYTES];
    int64_t size = 0;
    Predictions predictions = {.identity = identity};
    if (path != NULL) {
        const int n = snprintf(lock, sizeof lock, "%s.lock", path);
        if (n >= PATH_BYTES) {
            status = fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
            goto close;
        }
        strcpy(predictions.path, path);
        TRY_GOTO(close, file_check_target(path));
        TRY_GOTO(close, file_lock_take(&predictions.lock, lock, host,
                                       (LockRefusal){path, "another evaluation",
                                                     "wait for it or name another file"}));
        if (file_exists(path))
            TRY_GOTO(close, read_lines(&predictions, &size, path));
        TRY_GOTO(close, open_stream(&predictions, size));
    }
    *out = predictions;
    return OK;
close:
    predictions_close(&predictions);
    return status;
}

void predictions_close(Predictions *predictions)
{
    if (predictions->stream != NULL)
        fclose(predictions->stream);
    file_lock_remove(&predictions->lock);
    for (int64_t i = 0; i < predictions->n; i++)
        json_decref(predictions->items[i].line);
    free(predictions->items);
    json_decref(predictions->identity);
    *predictions = (Predictions){0};
}

// ---- writing -----------------------------------------------------------------------------------

Status predictions_add(Predictions *predictions, json_t *line)
{
    TRY(keep_line(predictions, line, 0));
    return predictions->stream != NULL ? write_line(predictions->stream, predictions->path, line)
                                       : OK;
}

Status predictions_sort(Predictions *predictions)
{
    AtomicFile file;
    Status status;
    if (predictions->n > 0)
        qsort(predictions->items, (size_t)predictions->n, sizeof *predictions->items,
              compare_predictions);
    if (predictions->stream == NULL)
        return OK;
    json_t *first = json_pack("{s:O}", identity_key, predictions->identity);
    TRY_GOTO(release, file_begin(&file, predictions->path));
    TRY_GOTO(abandon, write_line(file.stream, predictions->path, first));
    for (int64_t i = 0; i < predictions->n; i++)
        TRY_GOTO(abandon, write_line(file.stream, predictions->path, predictions->items[i].line));
    status = file_commit(&file);
    goto release;
abandon:
    file_abandon(&file);
release:
    json_decref(first);
    return status;
}
