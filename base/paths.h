// Paths and glob patterns into a list of files, the same on every machine.
//
//     PathList list;
//     TRY(paths_expand(&list, patterns, n_patterns));
//     for (int i = 0; i < list.count; i++)
//         use(list.paths[i]);
//     paths_release(&list);
#ifndef MHA2MLA_BASE_PATHS_H
#define MHA2MLA_BASE_PATHS_H

#include "base/status.h"

#include <stdbool.h>

typedef struct PathList {
    char **paths; // owned, each of them too
    int count;
} PathList;

// The patterns one after another, the matches of each in byte order. A name that exists as it is
// written is taken literally. BAD_INPUT naming a pattern that matches nothing.
Status paths_expand(PathList *out, char *const *patterns, int n_patterns);

// One pattern likewise, and a path as it is, to the end of a list that may be zeroed. What the list
// holds stays on errors.
Status paths_append_matches(PathList *list, const char *pattern);
Status paths_append(PathList *list, const char *path);

void paths_release(PathList *list); // a zeroed list is allowed

// Whether a name, of a file or a tensor, ends so. Case matters, as in the names that this program
// gives.
bool name_ends_with(const char *name, const char *end);

#endif
