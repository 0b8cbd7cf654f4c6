// The texts are those of config_write(), so a value that is listed can be given back as an
// override.
#include "train/config/config_values.h"

#include "train/config/config_table.h"
#include "train/config/config_value.h"

#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = 128 };

static Status no_memory(void)
{
    return fail(FAILED, "no memory for the list of the config's values");
}

// Takes over `text`.
static Status add(ConfigValues *values, const Key *key, const char *path, char *text)
{
    // One at a time: there are under a hundred, once per run.
    ConfigValue *items = realloc(values->items, ((size_t)values->n + 1) * sizeof *items);
    if (items == NULL)
        return no_memory();
    values->items = items;
    char *copy = strdup(path);
    if (copy == NULL)
        return no_memory();
    items[values->n++] = (ConfigValue){.key = copy,
                                       .text = text,
                                       .effect = key->effect,
                                       .is_derived = key->derived != NULL,
                                       .is_path = key->is_path};
    return OK;
}

// "[a.h5, b.h5]": what can be given back as an override on the command line.
static void write_texts(FILE *out, const void *base, const Key *key)
{
    const char *fields = base;
    char *const *texts = *(char *const *const *)(const void *)(fields + key->offset);
    const int n = *(const int *)(const void *)(fields + key->count_offset);
    for (int i = 0; i < n; i++) {
        fputs(i == 0 ? "[" : ", ", out);
        value_write_text(out, texts[i]);
    }
    fputc(']', out);
}

// `path` is the key's with the indices of the items it is in.
static Status add_key(ConfigValues *values, const void *base, const Key *key, const char *path)
{
    char *text = NULL;
    size_t n_bytes = 0;
    FILE *out = open_memstream(&text, &n_bytes);
    if (out == NULL)
        return no_memory();
    if (key->kind == KEY_TEXTS)
        write_texts(out, base, key);
    else
        value_write(out, base, key);
    Status status;
    TRY_GOTO(release_text, fclose(out) == 0 ? OK : no_memory());
    TRY_GOTO(release_text, add(values, key, path, text)); // which owns it now
    return OK;
release_text:
    free(text);
    return status;
}

static Status add_block(ConfigValues *values, const void *base, const char *block,
                        const char *prefix);

// Each item is a block of its own, data.sources[0]; their keys are in the table as data.sources[].
static Status add_items(ConfigValues *values, const void *base, const Key *key)
{
    const char *fields = base;
    const char *items = *(const char *const *)(const void *)(fields + key->offset);
    const int n = *(const int *)(const void *)(fields + key->count_offset);
    char block[KEY_BYTES], prefix[KEY_BYTES];
    snprintf(block, sizeof block, "%s[]", key->path);
    for (int i = 0; i < n; i++) {
        snprintf(prefix, sizeof prefix, "%s[%d]", key->path, i);
        TRY(add_block(values, items + (size_t)i * key->item_bytes, block, prefix));
    }
    return OK;
}

static Status add_block(ConfigValues *values, const void *base, const char *block,
                        const char *prefix)
{
    for (int k = 0; k < n_config_keys; k++) {
        const Key *key = &config_keys[k];
        const char *name = key_name_in(key, block);
        if (name == NULL || !value_is_given(base, key))
            continue;
        char path[KEY_BYTES];
        snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", name);
        if (key->kind == KEY_SECTION || key->kind == KEY_BLOCK)
            TRY(add_block(values, base, key->path, path));
        else if (key->kind == KEY_ITEMS)
            TRY(add_items(values, base, key));
        else
            TRY(add_key(values, base, key, path));
    }
    return OK;
}

Status config_values_list(ConfigValues *out, const Config *config)
{
    ConfigValues values = {0};
    Status status;
    TRY_GOTO(release, add_block(&values, config, "", ""));
    *out = values;
    return OK;
release:
    config_values_release(&values);
    return status;
}

// A key that the table does not know, from another version, is taken for one that changes the
// result.
KeyEffect config_key_effect(const char *key)
{
    char path[KEY_BYTES]; // as in the table: data.sources[] for data.sources[0]
    size_t n = 0;
    for (const char *c = key; *c != '\0' && n + 1 < sizeof path; c++) {
        if (c == key || c[-1] != '[' || *c < '0' || *c > '9')
            path[n++] = *c;
        else
            c += strspn(c, "0123456789") - 1;
    }
    path[n] = '\0';
    for (int k = 0; k < n_config_keys; k++) {
        if (strcmp(config_keys[k].path, path) == 0)
            return config_keys[k].effect;
    }
    return EFFECT_RESULT;
}

void config_values_release(ConfigValues *values)
{
    for (int i = 0; i < values->n; i++) {
        free(values->items[i].key);
        free(values->items[i].text);
    }
    free(values->items);
    *values = (ConfigValues){0};
}
