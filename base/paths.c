// Patterns are expanded by glob(3) and sorted by bytes: the list must be the same on every machine
// and rank, since the order of the shards decides which tokens a sample has.
#include "base/paths.h"

#include "base/file.h"

#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

Status paths_append(PathList *list, const char *path)
{
    // The capacity is 8, 16, 32 ... and need not be kept: from 8 on, the list is full whenever the
    // count is a power of two.
    if (list->count == 0 || (list->count >= 8 && (list->count & (list->count - 1)) == 0)) {
        size_t capacity = list->count == 0 ? 8 : 2 * (size_t)list->count;
        char **paths = realloc(list->paths, capacity * sizeof *paths);
        if (paths == NULL)
            return fail(FAILED, "out of memory for %zu paths", capacity);
        list->paths = paths;
    }
    char *copy = strdup(path);
    if (copy == NULL)
        return fail(FAILED, "out of memory for the path %.200s", path);
    list->paths[list->count++] = copy;
    return OK;
}

// glob() itself would sort by the locale, which may differ between machines.
static int compare_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

Status paths_append_matches(PathList *list, const char *pattern)
{
    if (file_exists(pattern)) // a name may hold '[' or '*' itself
        return paths_append(list, pattern);
    glob_t matches;
    // GLOB_ERR: an unreadable directory is an error, where glob() would otherwise drop its files
    // silently.
    const int code = glob(pattern, GLOB_NOSORT | GLOB_ERR, NULL, &matches);
    if (code == GLOB_NOMATCH)
        return fail(BAD_INPUT, "%s: no such file, and no pattern that matches one", pattern);
    if (code == GLOB_ABORTED)
        return fail(BAD_INPUT, "%s: a directory cannot be read: %s", pattern, strerror(errno));
    if (code != 0)
        return fail(FAILED, "%s: out of memory for its matches", pattern);
    qsort(matches.gl_pathv, matches.gl_pathc, sizeof *matches.gl_pathv, compare_bytes);
    Status status = OK;
    for (size_t i = 0; i < matches.gl_pathc; i++)
        TRY_GOTO(free_matches, paths_append(list, matches.gl_pathv[i]));
free_matches:
    globfree(&matches);
    return status;
}

// Duplicates are kept: a file that is named twice is read twice, as it was asked for.
Status paths_expand(PathList *out, char *const *patterns, int n_patterns)
{
    PathList list = {0};
    Status status;
    for (int i = 0; i < n_patterns; i++)
        TRY_GOTO(release, paths_append_matches(&list, patterns[i]));
    *out = list;
    return OK;
release:
    paths_release(&list);
    return status;
}

void paths_release(PathList *list)
{
    for (int i = 0; i < list->count; i++)
        free(list->paths[i]);
    free(list->paths);
    *list = (PathList){0};
}

bool name_ends_with(const char *name, const char *end)
{
    const size_t length = strlen(name), end_length = strlen(end);
    return length >= end_length && strcmp(name + length - end_length, end) == 0;
}
