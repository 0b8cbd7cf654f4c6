#include "eval/longbench/longbench_files.h"

#include "base/suggest.h"
#include "data/text/json_lines.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void longbench_files_release(LongbenchFiles *files)
{
    free(files->items);
    *files = (LongbenchFiles){0};
}

// The name of a set's file without its ending; false if it is not called like one.
static bool name_of_file(char out[LONGBENCH_NAME_BYTES], const char *file)
{
    const size_t length = strlen(file);
    for (int e = 0; json_lines_endings[e] != NULL; e++) {
        const size_t n = strlen(json_lines_endings[e]);
        if (length <= n || length - n >= LONGBENCH_NAME_BYTES ||
            strcmp(file + length - n, json_lines_endings[e]) != 0)
            continue;
        memcpy(out, file, length - n);
        out[length - n] = '\0';
        return true;
    }
    return false;
}

// What the file at `path` is, by its name or by its first row.
static Status identify(LongbenchSet *out, bool *is_set, const char *name, const char *path)
{
    const LongbenchSet *set = longbench_find_set(name);
    *is_set = set != NULL;
    if (set != NULL) {
        *out = *set;
        return OK;
    }
    JsonLines lines;
    json_t *row;
    TRY(json_lines_open(&lines, path));
    const Status status = json_lines_next(&row, &lines);
    json_lines_close(&lines);
    TRY(status);
    *is_set = row != NULL && longbench_needle_set(out, name, row);
    json_decref(row);
    return OK;
}

static Status add_file(LongbenchFiles *files, const LongbenchSet *set, const char *path)
{
    for (int f = 0; f < files->n; f++)
        if (strcmp(files->items[f].set.name, set->name) == 0)
            return fail(BAD_INPUT, "%s and %s are both the set %s; remove one of them",
                        files->items[f].path, path, set->name);
    LongbenchFile *items = realloc(files->items, (size_t)(files->n + 1) * sizeof *items);
    if (items == NULL)
        return fail(FAILED, "%s: no memory for its name", path);
    files->items = items;
    files->items[files->n] = (LongbenchFile){.set = *set};
    snprintf(files->items[files->n++].path, PATH_BYTES, "%s", path);
    return OK;
}

static Status add_directory(LongbenchFiles *files, const char *dir)
{
    Status status = OK;
    DIR *listing = opendir(dir);
    if (listing == NULL)
        return fail(BAD_INPUT, "%s: cannot be opened: %s", dir, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        char name[LONGBENCH_NAME_BYTES], path[PATH_BYTES];
        LongbenchSet set;
        bool is_set;
        if (entry->d_name[0] == '.' || !name_of_file(name, entry->d_name))
            continue;
        TRY_GOTO(close_listing, file_join(path, dir, entry->d_name));
        TRY_GOTO(close_listing, identify(&set, &is_set, name, path));
        if (is_set)
            TRY_GOTO(close_listing, add_file(files, &set, path));
    }
close_listing:
    closedir(listing);
    return status;
}

static int place(const LongbenchSet *set)
{
    const LongbenchSet *known = longbench_find_set(set->name);
    return known != NULL ? (int)(known - longbench_sets) : N_LONGBENCH_SETS;
}

static int compare_files(const void *a, const void *b)
{
    const LongbenchSet *first = &((const LongbenchFile *)a)->set;
    const LongbenchSet *second = &((const LongbenchFile *)b)->set;
    const int difference = place(first) - place(second);
    return difference != 0 ? difference : strcmp(first->name, second->name);
}

// ---- only some ---------------------------------------------------------------------------------

// Whether `name` [length] is one of the names between commas in `list`.
static bool is_listed(const char *list, const char *name)
{
    const size_t length = strlen(name);
    for (const char *at = list;; at++) {
        const size_t n = strcspn(at, ",");
        if (n == length && memcmp(at, name, n) == 0)
            return true;
        at += n;
        if (*at == '\0')
            return false;
    }
}

static Status refuse_name(const LongbenchFiles *files, const char *dir, const char *name)
{
    const char *names[N_LONGBENCH_SETS], *nearest;
    for (int s = 0; s < N_LONGBENCH_SETS; s++)
        names[s] = longbench_sets[s].name;
    if (longbench_find_set(name) != NULL)
        return fail(BAD_INPUT, "%s: has no %s.jsonl and no %s.jsonl.gz, which --only asks for", dir,
                    name, name);
    nearest = suggest_nearest(name, names, N_LONGBENCH_SETS);
    for (int f = 0; f < files->n && nearest == NULL; f++) {
        const char *known = files->items[f].set.name;
        nearest = suggest_nearest(name, &known, 1);
    }
    return fail(BAD_INPUT, "--only: '%s' is neither a set of LongBench nor in %s%s%s", name, dir,
                nearest != NULL ? "; did you mean " : "", nearest != NULL ? nearest : "");
}

static Status check_names(const LongbenchFiles *files, const char *dir, const char *only)
{
    for (const char *at = only;; at++) {
        char name[LONGBENCH_NAME_BYTES];
        const size_t n = strcspn(at, ",");
        bool is_there = false;
        snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name), at);
        for (int f = 0; f < files->n; f++)
            is_there |= strcmp(files->items[f].set.name, name) == 0;
        if (!is_there)
            return refuse_name(files, dir, name);
        at += n;
        if (*at == '\0')
            return OK;
    }
}

static void drop_others(LongbenchFiles *files, const char *only)
{
    int n = 0;
    for (int f = 0; f < files->n; f++)
        if (is_listed(only, files->items[f].set.name))
            files->items[n++] = files->items[f];
    files->n = n;
}

Status longbench_find_files(LongbenchFiles *out, const char *dir, const char *only)
{
    Status status;
    char data[PATH_BYTES];
    LongbenchFiles files = {0};
    TRY(file_join(data, dir, "data"));
    TRY_GOTO(release, add_directory(&files, dir));
    if (file_is_dir(data))
        TRY_GOTO(release, add_directory(&files, data));
    if (files.n == 0) {
        status = fail(BAD_INPUT,
                      "%s: has no set of LongBench, such as qasper.jsonl or data/qasper.jsonl.gz, "
                      "and no rows of RULER or of passkeys",
                      dir);
        goto release;
    }
    if (only != NULL) {
        TRY_GOTO(release, check_names(&files, dir, only));
        drop_others(&files, only);
    }
    qsort(files.items, (size_t)files.n, sizeof *files.items, compare_files);
    *out = files;
    return OK;
release:
    longbench_files_release(&files);
    return status;
}
