// Values are cut and named here, but not understood: config_load() parses them as overrides, so
// that a value means the same in --vary and in --section.key=value.
#include "train/sweep/sweep_axis.h"

#include "train/config/config_table.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 64 }; // bytes of a value in a run's name

// Short and without a dash: these names are older than --vary.
static const char D_KV[] = "model.convert.d_kv", D_KV_WORD[] = "dkv";

static Status no_memory(void)
{
    return fail(FAILED, "sweep: no memory for the values of its keys");
}

// The bytes until the comma that ends a value, or until the end of the text; -1 where a quote or a
// bracket is not closed. As in YAML, a quote counts where a value or an item begins, and not in
// the middle of a word.
static long value_bytes(const char *text)
{
    char quote = '\0', before = ',';
    int depth = 0;
    long i = 0;
    for (; text[i] != '\0'; i++) {
        const char c = text[i];
        if (quote != '\0') {
            if (c == '\\' && quote == '"' && text[i + 1] != '\0')
                i++;
            else if (c == quote && quote == '\'' && text[i + 1] == quote)
                i++; // '' stands for one quote
            else if (c == quote)
                quote = '\0';
            continue;
        }
        if (c == ',' && depth == 0)
            break;
        if ((c == '\'' || c == '"') && strchr(",[{:", before) != NULL)
            quote = c;
        else if (c == '[' || c == '{')
            depth++;
        else if (c == ']' || c == '}')
            depth--;
        if (c != ' ')
            before = c;
    }
    return quote == '\0' && depth == 0 ? i : -1;
}

static const Key *find_key(const char *path)
{
    for (int k = 0; k < n_config_keys; k++)
        if (strcmp(config_keys[k].path, path) == 0)
            return &config_keys[k];
    return NULL;
}

// An unknown key passes: config_load() names the nearest one.
static Status check_key(const char *path)
{
    const Key *key = find_key(path);
    if (strcmp(path, "run.name") == 0 || strcmp(path, "run.dir") == 0)
        return fail(BAD_INPUT, "--vary %s: the sweep itself names the runs' directories", path);
    if (key == NULL)
        return OK;
    if (key->kind == KEY_SECTION || key->kind == KEY_BLOCK)
        return fail(BAD_INPUT, "--vary %s: has keys of its own; vary one of them", path);
    if (key->kind == KEY_ITEMS)
        return fail(BAD_INPUT, "--vary %s: is a list, which a sweep cannot vary", path);
    return OK;
}

static bool is_of_name(char c)
{
    return isalnum((unsigned char)c) || (c != '\0' && strchr("._+-", c) != NULL);
}

// "rope-low", "dkv16". What cannot be in a name becomes a dash, each run of
// such characters one, and none at the ends. Of a path, the last part counts.
static Status make_name(char **out, const SweepAxis *axis, const char *value, size_t length)
{
    const char *path = axis->key;
    const Key *key = find_key(path);
    char name[MAX_NAME + 1];
    size_t n = 0, from = 0;
    if (key != NULL && key->is_path)
        for (size_t i = 0; i + 1 < length; i++)
            from = value[i] == '/' && is_of_name(value[i + 1]) ? i + 1 : from;
    for (size_t i = from; i < length && n <= MAX_NAME; i++) {
        if (is_of_name(value[i]) && n == MAX_NAME)
            return fail(
                BAD_INPUT,
                "--vary %s: '%.100s...' is longer than the %d bytes that a run's name takes "
                "from a value",
                path, value, MAX_NAME);
        if (is_of_name(value[i]))
            name[n++] = value[i];
        else if (n > 0 && n < MAX_NAME && name[n - 1] != '-')
            name[n++] = '-';
    }
    while (n > 0 && name[n - 1] == '-')
        n--;
    name[n] = '\0';
    if (n == 0)
        return fail(BAD_INPUT, "--vary %s: '%.*s' has no character that can be in a run's name",
                    path, (int)length, value);
    const size_t size_bytes = strlen(axis->word) + n + 2;
    *out = malloc(size_bytes);
    if (*out == NULL)
        return no_memory();
    snprintf(*out, size_bytes, "%s%s%s", axis->word, axis->word == D_KV_WORD ? "" : "-", name);
    return OK;
}

static Status make_override(char **out, const char *path, const char *value, size_t length)
{
    const size_t size_bytes = strlen(path) + length + 4;
    *out = malloc(size_bytes);
    if (*out == NULL)
        return no_memory();
    snprintf(*out, size_bytes, "--%s=%.*s", path, (int)length, value);
    return OK;
}

// `option` is what errors name, and `value` without spaces around it.
static Status add_value(SweepAxis *axis, const char *option, const char *value, size_t length)
{
    SweepValue *items = realloc(axis->items, ((size_t)axis->n + 1) * sizeof *items);
    if (items == NULL)
        return no_memory();
    axis->items = items;
    SweepValue *item = &items[axis->n++];
    *item = (SweepValue){0};
    TRY(make_override(&item->override, axis->key, value, length));
    TRY(make_name(&item->name, axis, value, length));
    for (int i = 0; i < axis->n - 1; i++) {
        if (strcmp(items[i].override, item->override) == 0)
            return fail(BAD_INPUT, "%s has %.*s twice", option, (int)length, value);
        if (strcmp(items[i].name, item->name) == 0)
            return fail(BAD_INPUT, "%s: '%.*s' and another value both give a run the name %s",
                        option, (int)length, value, item->name);
    }
    return OK;
}

// Takes over `key`, NULL for no memory.
static Status set_key(SweepAxis *axis, char *key)
{
    if (key == NULL)
        return no_memory();
    const char *dot = strrchr(key, '.');
    axis->key = key;
    axis->word = strcmp(key, D_KV) == 0 ? D_KV_WORD : dot != NULL ? dot + 1 : key;
    return OK;
}

// The values of axis->key.
static Status parse_values(SweepAxis *axis, const char *option, const char *text)
{
    for (const char *at = text;; at++) {
        const long bytes = value_bytes(at);
        if (bytes < 0)
            return fail(BAD_INPUT, "%s: '%.200s' has a quote or bracket that is not closed", option,
                        at);
        size_t from = 0, to = (size_t)bytes;
        while (from < to && at[from] == ' ')
            from++;
        while (to > from && at[to - 1] == ' ')
            to--;
        if (from == to)
            return fail(BAD_INPUT, "%s: '%.200s' has an empty value; write none for no value",
                        option, text);
        TRY(add_value(axis, option, at + from, to - from));
        at += bytes;
        if (*at == '\0')
            return OK;
    }
}

Status sweep_axis_parse(SweepAxis *out, const char *text)
{
    SweepAxis axis = {0};
    char option[160];
    const size_t length = strcspn(text, "=");
    if (text[length] != '=' || length == 0 || length > 128)
        return fail(BAD_INPUT, "--vary is '%.200s'; write KEY=VALUE,VALUE,...", text);
    TRY(set_key(&axis, strndup(text, length)));
    snprintf(option, sizeof option, "--vary %s", axis.key);
    Status status;
    TRY_GOTO(release, check_key(axis.key));
    TRY_GOTO(release, parse_values(&axis, option, text + length + 1));
    *out = axis;
    return OK;
release:
    sweep_axis_release(&axis);
    return status;
}

// Each a whole number, so that "8" and "08" are not two runs.
Status sweep_axis_parse_d_kvs(SweepAxis *out, const char *list)
{
    for (const char *at = list;; at++) {
        const size_t length = strcspn(at, ",");
        if (length == 0 || length > 6 || *at == '0' || strspn(at, "0123456789") != length)
            return fail(BAD_INPUT, "--d-kv is '%.100s'; give whole numbers, such as 16,8,4", list);
        at += length;
        if (*at == '\0')
            break;
    }
    SweepAxis axis = {0};
    Status status;
    TRY(set_key(&axis, strdup(D_KV)));
    TRY_GOTO(release, parse_values(&axis, "--d-kv", list));
    *out = axis;
    return OK;
release:
    sweep_axis_release(&axis);
    return status;
}

bool sweep_axis_is_in(const SweepAxis *axis, const char *block)
{
    const size_t length = strlen(block);
    return strncmp(axis->key, block, length) == 0 &&
           (axis->key[length] == '.' || axis->key[length] == '\0');
}

void sweep_axis_release(SweepAxis *axis)
{
    for (int i = 0; i < axis->n; i++) {
        free(axis->items[i].override);
        free(axis->items[i].name);
    }
    free(axis->items);
    free(axis->key);
    *axis = (SweepAxis){0};
}
