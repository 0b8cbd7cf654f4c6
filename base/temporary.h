// Temporary files: what is written lies under a name of its own until it is whole.
//
//     char temporary[PATH_BYTES];
//     TRY(temporary_make(temporary, "shards/a.h5"));   // shards/.a.h5.tmp-node7-4711-0, empty
//     ...                                              // fill it
//     TRY(file_publish(temporary, "shards/a.h5"));     // or unlink(temporary)
//
// Two processes that write one file never share a temporary one, so each has the whole of its own
// result when it renames; the later rename wins. A process that is killed leaves its temporary
// file, which host and process id in the name tell from one that is in use.
#ifndef MHA2MLA_BASE_TEMPORARY_H
#define MHA2MLA_BASE_TEMPORARY_H

#include "base/file.h"

// Makes an empty file beside `path` and gives its name. FAILED, naming `path`, if it cannot be
// made; BAD_INPUT if `path` is a device, a pipe or a socket, which the file must not replace.
Status temporary_make(char out[PATH_BYTES], const char *path);

// Removes the temporary files in the directory of `path` whose process, one of this host, is gone.
// Those of other hosts stay: whether they are in use cannot be seen from here.
void temporary_remove_dead(const char *path);

// Removes all temporary files in a directory that is this process's alone, as a run's is once it is
// locked.
void temporary_remove_all(const char *dir);

#endif
