// How the settings of a run changed over its resumes: a list of changes, each with the step after
// which it holds. It is kept in run.json with the newest config, so that a change can be undone: a
// resume from an earlier checkpoint first takes back the changes that no kept step was trained
// with.
// Settings are kept as the texts of config_values_list(), not as a Config: a later version of the
// program, with other keys, can still compare them.
#define _GNU_SOURCE // for asprintf
#include "train/job/config_history.h"

#include "base/file.h"
#include "base/log.h"
#include "train/config/config_values.h"

#include <stdlib.h>
#include <string.h>

static Status no_memory(void)
{
    return fail(FAILED, "no memory for the history of the run's settings");
}

// `config` is an object of texts, or a change. NULL for a key that it does not have.
static const char *text_of(const json_t *config, const char *key)
{
    return json_string_value(json_object_get(config, key));
}

static json_t *text_or_null(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

// An object of key: text, in the order of the config table.
static Status config_to_json(json_t **out, const Config *config)
{
    ConfigValues values;
    TRY(config_values_list(&values, config));
    json_t *object = json_object();
    bool is_done = true;
    for (int i = 0; i < values.n && is_done; i++) {
        const ConfigValue *value = &values.items[i]; // UTF-8, as all text that YAML lets through
        is_done = json_object_set_new(object, value->key, json_string(value->text)) == 0;
    }
    config_values_release(&values);
    if (is_done) {
        *out = object;
        return OK;
    }
    json_decref(object);
    return no_memory();
}

// ---- the earlier history -----------------------------------------------------------------------

static bool is_text_or_null(const json_t *value)
{
    return json_is_string(value) || json_is_null(value);
}

// Run directories outlive programs and can be edited: nothing of the file is used before its form
// is checked.
static bool is_change(const json_t *change)
{
    return json_is_integer(json_object_get(change, "step")) &&
           json_is_string(json_object_get(change, "key")) &&
           is_text_or_null(json_object_get(change, "old")) &&
           is_text_or_null(json_object_get(change, "new"));
}

// false: run.json is missing, damaged, or of a version that did not keep the config there.
static bool read_run_json(ConfigHistory *out, const char *run_dir)
{
    char path[PATH_BYTES];
    json_t *root;
    if (file_join(path, run_dir, "run.json") != OK || !file_exists(path) ||
        json_read(&root, path) != OK)
        return false;
    json_t *config = json_object_get(root, "config");
    json_t *changes = json_object_get(root, "config_changes");
    bool is_whole = json_is_object(config) && json_is_array(changes);
    const char *key;
    json_t *text; // borrowed
    json_object_foreach(config, key, text)
    {
        is_whole = is_whole && json_is_string(text);
    }
    for (size_t i = 0; is_whole && i < json_array_size(changes); i++)
        is_whole = is_change(json_array_get(changes, i));
    if (is_whole)
        *out = (ConfigHistory){.config = json_incref(config), .changes = json_incref(changes)};
    json_decref(root);
    return is_whole;
}

// Of a run from before run.json kept the config: its changes until now are not known.
static bool read_config_yaml(ConfigHistory *out, const char *run_dir)
{
    char path[PATH_BYTES];
    Config config;
    if (file_join(path, run_dir, "config.yaml") != OK || !file_exists(path) ||
        config_load(&config, path, NULL, 0) != OK)
        return false;
    ConfigHistory history = {.changes = json_array()};
    const bool is_read = history.changes != NULL && config_to_json(&history.config, &config) == OK;
    config_release(&config);
    if (is_read)
        *out = history;
    else
        config_history_release(&history);
    return is_read;
}

// Undoes the changes from `step` on, newest first: no step up to it was trained with them.
static Status undo_from(ConfigHistory *history, json_int_t step)
{
    for (size_t i = json_array_size(history->changes); i > 0; i--) {
        const json_t *change = json_array_get(history->changes, i - 1);
        if (json_integer_value(json_object_get(change, "step")) < step)
            continue;
        const char *key = text_of(change, "key");
        json_t *old = json_object_get(change, "old");
        if (json_is_null(old))
            json_object_del(history->config, key);
        else if (json_object_set(history->config, key, old) != 0)
            return no_memory();
        json_array_remove(history->changes, i - 1);
    }
    return OK;
}

// ---- the changes -------------------------------------------------------------------------------

// `old` and `new`: NULL where the config does not have the key.
static Status add_change(json_t *changes, int step, const char *key, const char *old,
                         const char *new)
{
    json_t *change = json_pack("{s:i, s:s, s:o, s:o}", "step", step, "key", key, "old",
                               text_or_null(old), "new", text_or_null(new));
    return json_array_append_new(changes, change) == 0 ? OK : no_memory();
}

// Adds what differs between the config of the history and `now`, in the order of the config; keys
// that the config has no more come last.
static Status add_changes(ConfigHistory *history, const json_t *now, int step)
{
    const char *key;
    json_t *text; // borrowed
    json_object_foreach((json_t *)(uintptr_t)now, key, text)
    {
        const char *old = text_of(history->config, key), *new = json_string_value(text);
        if (old == NULL || strcmp(old, new) != 0)
            TRY(add_change(history->changes, step, key, old, new));
    }
    json_object_foreach(history->config, key, text)
    {
        if (text_of(now, key) == NULL)
            TRY(add_change(history->changes, step, key, json_string_value(text), NULL));
    }
    return OK;
}

// What trained the step that is resumed from; *out stays empty where that is not known.
static Status read_earlier(ConfigHistory *out, const RunDir *dir)
{
    if (read_run_json(out, dir->path) || read_config_yaml(out, dir->path))
        return undo_from(out, dir->checkpoint.manifest.state.step);
    log_warn("%s: neither run.json nor config.yaml says what the run was trained with until step "
             "%d; changed settings are not seen",
             dir->path, dir->checkpoint.manifest.state.step);
    return OK;
}

// `old` and `new` of a change are texts; a key that one config does not have is null.
Status config_history_read(ConfigHistory *out, const RunDir *dir, const Config *config)
{
    ConfigHistory history = {0};
    json_t *now = NULL;
    Status status;
    TRY_GOTO(release, config_to_json(&now, config));
    if (dir->is_resumed)
        TRY_GOTO(release, read_earlier(&history, dir));
    if (history.config != NULL) {
        history.n_earlier = (int)json_array_size(history.changes);
        TRY_GOTO(release, add_changes(&history, now, dir->checkpoint.manifest.state.step));
        json_decref(history.config);
    } else {
        history.changes = json_array();
    }
    history.config = now;
    *out = history;
    return OK;
release:
    json_decref(now);
    config_history_release(&history);
    return status;
}

// "after step 500: optim.lr 1.0e-4 -> 5.0e-5"; the caller frees it, NULL without memory.
static char *describe(const json_t *change)
{
    static const char *const notes[] = {
        [EFFECT_RESULT] = "",
        [EFFECT_ROUNDING] = " (moves the result by rounding)",
        [EFFECT_NONE] = " (no effect on the result)",
    };
    const char *key = text_of(change, "key");
    const char *old = text_of(change, "old"), *new = text_of(change, "new");
    char *text;
    const int n = asprintf(&text, "after step %lld: %s %s -> %s%s",
                           (long long)json_integer_value(json_object_get(change, "step")), key,
                           old != NULL ? old : "none", new != NULL ? new : "none",
                           notes[config_key_effect(key)]);
    return n >= 0 ? text : NULL;
}

Status config_history_log(const ConfigHistory *history)
{
    for (size_t i = (size_t)history->n_earlier; i < json_array_size(history->changes); i++) {
        char *text = describe(json_array_get(history->changes, i));
        if (text == NULL)
            return no_memory();
        log_info("changed setting, %s", text);
        free(text);
    }
    return OK;
}

// Comments, so that the file stays a config that can be given to train again.
static Status write_yaml(FILE *out, const ConfigHistory *history, const Config *config)
{
    if (json_array_size(history->changes) > 0)
        fputs("# What the newest steps are trained with. Changed while the run was trained:\n",
              out);
    for (size_t i = 0; i < json_array_size(history->changes); i++) {
        char *text = describe(json_array_get(history->changes, i));
        if (text == NULL)
            return no_memory();
        fprintf(out, "#   %s\n", text);
        free(text);
    }
    config_print(out, config);
    return OK;
}

Status config_history_write_yaml(const ConfigHistory *history, const RunDir *dir,
                                 const Config *config)
{
    char path[PATH_BYTES];
    AtomicFile file;
    Status status;
    TRY(file_join(path, dir->path, "config.yaml"));
    TRY(file_begin(&file, path));
    TRY_GOTO(abandon_file, write_yaml(file.stream, history, config));
    return file_commit(&file); // sees the stream's error
abandon_file:
    file_abandon(&file);
    return status;
}

void config_history_release(ConfigHistory *history)
{
    json_decref(history->config);
    json_decref(history->changes);
    *history = (ConfigHistory){0};
}
