// Everything is compared by the texts of config_values_list(), which are equal where the values
// are. A key that one of the configs does not have counts as "none" there: an optional one was left
// out, or it is of a block that was.
#include "train/report/report_settings.h"

#include "train/config/config_values.h"
#include "train/report/report_varied.h"

#include <stdlib.h>
#include <string.h>

// Both members were checked when run.json was read (report_run.c).
static int step_of(const json_t *change)
{
    return (int)json_integer_value(json_object_get(change, "step"));
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "none";
}

// train.steps alone does not: a step is trained alike in a longer run, and where the decay moves
// with the end, optim.decay_start has changed, too.
static bool matters(const char *key)
{
    return config_key_effect(key) != EFFECT_NONE && strcmp(key, "train.steps") != 0;
}

// The conversion is what the runs are compared for, what they vary has a column of the table, and
// validation text is compared by its content (write_other_set).
static bool is_compared_otherwise(const Report *report, const char *key)
{
    return strncmp(key, "model.convert.", 14) == 0 || report_varied_has(report, key) ||
           strncmp(key, "data.validation.", 16) == 0;
}

// Changes are few and in no certain order, so the next one is searched for.
int report_settings_next_change(const ReportRun *run, int after)
{
    int next = -1;
    for (size_t i = 0; i < json_array_size(run->changes); i++) {
        const json_t *change = json_array_get(run->changes, i);
        const int step = step_of(change);
        if (step > after && (next < 0 || step < next) && matters(text_of(change, "key")))
            next = step;
    }
    return next;
}

// What stands between two parts of the line, or of one of its lists.
static const char *between(bool *is_first, const char *separator)
{
    const char *text = *is_first ? "" : separator;
    *is_first = false;
    return text;
}

static void write_changes(FILE *out, const ReportRun *run, bool *is_first)
{
    for (int step = report_settings_next_change(run, -1); step >= 0;
         step = report_settings_next_change(run, step)) {
        bool is_first_key = true;
        fprintf(out, "%ssettings changed after step %d: ", between(is_first, "; "), step);
        for (size_t i = 0; i < json_array_size(run->changes); i++) {
            const json_t *change = json_array_get(run->changes, i);
            const char *key = text_of(change, "key");
            if (step_of(change) == step && matters(key))
                fprintf(out, "%s%s %s -> %s", between(&is_first_key, ", "), key,
                        text_of(change, "old"), text_of(change, "new"));
        }
    }
}

// Where the newest loss on an earlier set was measured.
static void write_earlier_set(FILE *out, const ReportRun *run, bool *is_first)
{
    for (int i = run->n_points - 1; i >= 0; i--) {
        if (!report_run_is_earlier_set(run, &run->points[i]))
            continue;
        fprintf(out, "%svalidated on other text until step %d", between(is_first, "; "),
                run->points[i].step);
        return;
    }
}

// Rounding is left out: another micro-batch is usual where models differ in memory.
static bool is_different(const Report *report, const json_t *config, const json_t *other,
                         const char *key)
{
    return config_key_effect(key) == EFFECT_RESULT && matters(key) &&
           !is_compared_otherwise(report, key) &&
           strcmp(text_of(config, key), text_of(other, key)) != 0;
}

// The keys of both configs, each once.
static void write_differences(FILE *out, const Report *report, const ReportRun *run,
                              const ReportRun *other, bool *is_first)
{
    const char *key;
    json_t *text; // borrowed
    bool is_first_key = true;
    if (run->config == NULL || other->config == NULL)
        return;
    for (int pass = 0; pass < 2; pass++) { // those of this run, then those that it does not have
        const json_t *keys = pass == 0 ? run->config : other->config;
        json_object_foreach((json_t *)(uintptr_t)keys, key, text)
        {
            const bool is_seen = pass == 1 && json_object_get(run->config, key) != NULL;
            if (is_seen || !is_different(report, run->config, other->config, key))
                continue;
            if (is_first_key)
                fprintf(out, "%sdiffers from %s in ", between(is_first, "; "), other->label);
            fprintf(out, "%s%s %s (there %s)", between(&is_first_key, ", "), key,
                    text_of(run->config, key), text_of(other->config, key));
        }
    }
}

// Losses on different text cannot be compared, which the line says.
static void write_other_set(FILE *out, const ReportRun *run, const ReportRun *other, bool *is_first)
{
    if (run->newest_set < 0 || other->newest_set < 0 ||
        report_run_is_same_set(run->valid_sets[run->newest_set],
                               other->valid_sets[other->newest_set]))
        return;
    fprintf(out, "%svalidated on other text than %s", between(is_first, "; "), other->label);
}

// The parts are written one behind the other into memory; "" where nothing differs.
Status report_settings_describe(char **out, const Report *report, int place)
{
    const ReportRun *run = &report->runs[place];
    const ReportRun *other = &report->runs[report->baseline >= 0 ? report->baseline : 0];
    char *text = NULL;
    size_t n_bytes = 0;
    bool is_first = true;
    FILE *stream = open_memstream(&text, &n_bytes);
    if (stream == NULL)
        return fail(FAILED, "%s: no memory", run->dir);
    write_changes(stream, run, &is_first);
    write_earlier_set(stream, run, &is_first);
    if (run != other) {
        write_differences(stream, report, run, other, &is_first);
        write_other_set(stream, run, other, &is_first);
    }
    if (fclose(stream) != 0) {
        free(text);
        return fail(FAILED, "%s: no memory", run->dir);
    }
    *out = text;
    return OK;
}
