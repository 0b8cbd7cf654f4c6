// Three passes: the file and the overrides become one tree of YAML nodes; the table binds the
// tree's nodes to the fields of Config; then keys that depend on each other are checked. Errors are
// collected over all three passes, so that a user mends a config in one go. Overrides are put into
// the tree before it is bound, so that they are checked exactly like the file.
#include "train/config/config.h"

#include "base/suggest.h"
#include "train/config/config_check.h"
#include "train/config/config_table.h"
#include "train/config/config_value.h"
#include "train/config/config_yaml.h"

#include <stdlib.h>
#include <string.h>

static void *field_of(void *base, size_t offset)
{
    return (char *)base + offset;
}

enum { MAX_CANDIDATES = 256, MAX_ITEMS = 1000, BLOCK_BYTES = 128 };

// The key that was most likely meant: one of that very name in another block, as keys are often put
// into the wrong one; else the nearest of this block by edit distance; else the nearest of all.
// NULL: none is near.
static const char *nearest_key(const char *block, const char *name)
{
    const char *siblings[MAX_CANDIDATES] = {NULL}, *all[MAX_CANDIDATES] = {NULL};
    const Key *sibling_keys[MAX_CANDIDATES] = {NULL};
    int n_siblings = 0;
    CHECK(n_config_keys < MAX_CANDIDATES, "%d config keys", n_config_keys);
    for (int k = 0; k < n_config_keys; k++) {
        const char *dot = strrchr(config_keys[k].path, '.');
        all[k] = dot != NULL ? dot + 1 : config_keys[k].path;
        if (strcmp(all[k], name) == 0)
            return config_keys[k].path;
        siblings[n_siblings] = key_name_in(&config_keys[k], block);
        sibling_keys[n_siblings] = &config_keys[k];
        n_siblings += siblings[n_siblings] != NULL;
    }
    const char *nearest = suggest_nearest(name, siblings, n_siblings);
    for (int i = 0; nearest != NULL && i < n_siblings; i++) {
        if (siblings[i] == nearest)
            return sibling_keys[i]->path;
    }
    nearest = suggest_nearest(name, all, n_config_keys);
    for (int k = 0; nearest != NULL && k < n_config_keys; k++) {
        if (all[k] == nearest)
            return config_keys[k].path;
    }
    return NULL;
}

// Adds an error for each entry that the table does not know. A key with dots is correct on the
// command line, so its error says where dots belong.
static void find_unknown(const Node *map, const char *block, ConfigErrors *errors)
{
    const char *dot = block[0] != '\0' ? "." : "";
    for (const Node *entry = map->first; entry != NULL; entry = entry->next) {
        if (key_find(block, entry->key) != NULL)
            continue;
        char path[256];
        snprintf(path, sizeof path, "%s%s%.100s", block, dot, entry->key);
        const char *nearest = nearest_key(block, entry->key);
        if (strchr(entry->key, '.') != NULL)
            errors_add(errors, entry->line, path,
                       "unknown key %s; dots are for the command line, write nested blocks", path);
        else if (nearest != NULL)
            errors_add(errors, entry->line, path, "unknown key %s; did you mean %s?", path,
                       nearest);
        else
            errors_add(errors, entry->line, path,
                       "unknown key %s; see mha2mla train --help-config for the keys", path);
    }
}

static Status bind_map(void *base, const Node *node, const char *block, int line,
                       ConfigErrors *errors);

// The items lie in one block of memory, item_bytes each. They are attached to the config before
// they are bound, so that config_release() frees them also after an error in one of them.
static Status bind_items(void *base, const Key *key, const Node *node, ConfigErrors *errors)
{
    if (node->kind != NODE_LIST || node->n_children == 0) {
        errors_add(errors, node->line, key->path,
                   "%s must be a list of mappings with at least one entry", key->path);
        return OK;
    }
    if (node->n_children > MAX_ITEMS) {
        errors_add(errors, node->line, key->path, "%s has %d entries, allowed are 1 to %d",
                   key->path, node->n_children, MAX_ITEMS);
        return OK;
    }
    char *items = calloc((size_t)node->n_children, key->item_bytes);
    if (items == NULL)
        return fail(FAILED, "%s: no memory to read it", key->path);
    *(void **)field_of(base, key->offset) = items;
    *(int *)field_of(base, key->count_offset) = node->n_children;
    char block[BLOCK_BYTES]; // the items' keys are in the table as data.sources[].name
    snprintf(block, sizeof block, "%s[]", key->path);
    for (const Node *item = node->first; item != NULL; item = item->next) {
        TRY(bind_map(items, item, block, item->line, errors));
        items += key->item_bytes;
    }
    return OK;
}

// A key that is left out, or none. A section is always bound, for the defaults of its keys.
static Status bind_absent(void *base, const Key *key, int line, ConfigErrors *errors)
{
    if (key->kind == KEY_SECTION)
        return bind_map(base, NULL, key->path, line, errors);
    if (key->required)
        errors_add(errors, line, key->path, "%s is missing", key->path);
    else if (key->standard != NULL)
        return value_set_standard(field_of(base, key->offset), key, errors);
    return OK;
}

// A block that is written, even without keys, is given; everything else has its value in its own
// field.
static Status bind_key(void *base, const Key *key, const Node *node, ConfigErrors *errors)
{
    switch (key->kind) {
    case KEY_BLOCK:
        *(bool *)field_of(base, key->offset) = true;
        return bind_map(base, node, key->path, node->line, errors);
    case KEY_SECTION:
        return bind_map(base, node, key->path, node->line, errors);
    case KEY_ITEMS:
        return bind_items(base, key, node, errors);
    default:
        return value_set(field_of(base, key->offset), field_of(base, key->count_offset), key, node,
                         errors);
    }
}

// Binds the keys of a block. `node` is NULL for a section that is left out: all its keys get their
// defaults. `line` is the one that errors about missing keys name.
static Status bind_map(void *base, const Node *node, const char *block, int line,
                       ConfigErrors *errors)
{
    bool is_empty = node != NULL && node->kind == NODE_SCALAR && node->text[0] == '\0';
    if (node != NULL && node->kind != NODE_MAP && !is_empty) {
        errors_add(errors, line, block, "%s is a %s where it needs keys of its own", block,
                   node->kind == NODE_LIST ? "list" : "single value");
        return OK;
    }
    if (node != NULL && !is_empty)
        find_unknown(node, block, errors);
    for (int k = 0; k < n_config_keys; k++) {
        const Key *key = &config_keys[k];
        const char *name = key_name_in(key, block);
        if (name == NULL)
            continue;
        const Node *value = node_find(node, name, strlen(name));
        if (value == NULL || (key_is_optional(key) && value_is_none(value)))
            TRY(bind_absent(base, key, line, errors));
        else
            TRY(bind_key(base, key, value, errors));
    }
    return OK;
}

// Without run.name, the run has the name of its config file, so that runs of several configs do not
// share a directory.
static Status name_run(Config *config, const char *path)
{
    if (config->run.name != NULL)
        return OK;
    const char *slash = strrchr(path, '/');
    const char *stem = slash != NULL ? slash + 1 : path;
    const char *dot = strrchr(stem, '.');
    size_t length = dot != NULL && dot != stem ? (size_t)(dot - stem) : strlen(stem);
    config->run.name = strndup(stem, length);
    return config->run.name != NULL ? OK : fail(FAILED, "%s: no memory to read it", path);
}

// Errors of the user's are collected and the binding continues; a Status other than OK from the
// parts means a lack of memory, or a file that is no YAML at all, where nothing more can be said.
static Status load(Config *config, Tree *tree, const char *path, char *const *overrides,
                   int n_overrides, ConfigErrors *errors)
{
    TRY(tree_read(tree, path, errors));
    for (int i = 0; i < n_overrides; i++)
        TRY(tree_override(tree, overrides[i], errors));
    // Marks that config_check() tells from values: both keys may be left out and then follow from
    // others.
    config->optim.schedule.decay_start = DECAY_START_NOT_GIVEN;
    config->train.steps = STEPS_NOT_GIVEN;
    TRY(bind_map(config, tree->root, "", LINE_NONE, errors));
    TRY(name_run(config, path));
    config_check(config, tree, errors);
    return errors_report(errors);
}

// Sources of one value, from the weakest to the strongest: default, file, command line.
Status config_load(Config *out, const char *path, char *const *overrides, int n_overrides)
{
    ConfigErrors *errors = calloc(1, sizeof *errors);
    if (errors == NULL)
        return fail(FAILED, "%s: no memory to read it", path);
    errors->file = path;
    Tree tree = {0};
    Config config = {0};
    Status status;
    TRY_GOTO(release, load(&config, &tree, path, overrides, n_overrides, errors));
    *out = config;
    config = (Config){0}; // the caller's
release:
    config_release(&config); // also one that is bound in part
    tree_release(&tree);
    free(errors);
    return status;
}

static void release_block(void *base, const char *block);

// Frees what value_set() and bind_items() have allocated; fields that were never set are NULL.
static void release_key(void *base, const Key *key)
{
    void *field = field_of(base, key->offset);
    if (key->kind == KEY_TEXT)
        free(*(char **)field);
    if (key->kind != KEY_TEXTS && key->kind != KEY_ITEMS)
        return;
    int count = *(int *)field_of(base, key->count_offset);
    char *list = *(void **)field;
    for (int i = 0; i < count; i++) {
        if (key->kind == KEY_TEXTS) {
            free(((char **)(void *)list)[i]);
            continue;
        }
        char block[BLOCK_BYTES];
        snprintf(block, sizeof block, "%s[]", key->path);
        release_block(list + (size_t)i * key->item_bytes, block);
    }
    free(list);
}

// By the table that has bound the config, so a key that is added to it needs no code here.
static void release_block(void *base, const char *block)
{
    for (int k = 0; k < n_config_keys; k++) {
        const Key *key = &config_keys[k];
        if (key_name_in(key, block) == NULL)
            continue;
        if (key->kind == KEY_SECTION || key->kind == KEY_BLOCK)
            release_block(base, key->path);
        else
            release_key(base, key);
    }
}

void config_release(Config *config)
{
    release_block(config, "");
    *config = (Config){0};
}

bool config_needs_statistics(const Config *config)
{
    const ConvertConfig *convert = &config->model.convert;
    return convert->given &&
           (convert->rope == ROPE_KL || recipe_needs_statistics(&convert->recipe));
}

// The 2-norm strategy needs norms of RoPE pairs; a file of scores replaces the pass.
bool config_calibrates(const Config *config)
{
    const ConvertConfig *convert = &config->model.convert;
    return convert->given && convert->scores == NULL &&
           (convert->rope == ROPE_2NORM || config_needs_statistics(config));
}

bool config_reads_original(const Config *config)
{
    return config->model.convert.given &&
           (config->data.validation.given || config_calibrates(config));
}

bool config_distills(const Config *config)
{
    return config->model.convert.given && config->distill.given;
}

int config_distill_len(const Config *config)
{
    const int at_most = config->distill.window_len;
    return at_most < config->data.seq_len ? at_most : config->data.seq_len;
}
