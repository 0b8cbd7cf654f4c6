// A path that is the same text on all hosts may be a different directory on each of them (/tmp, a
// home directory that is not exported). Only a file that one rank creates and the others find tells
// the difference. Comparing device and inode numbers would not: they are local to a host.
#define _GNU_SOURCE // for mkstemp
#include "train/parallel/shared_dir.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOKEN_PREFIX ".shared-"

// A name that was never there: what a network file system remembers of its absence does not matter.
static Status make_token(char path[PATH_BYTES], const char *dir)
{
    TRY(file_join(path, dir, TOKEN_PREFIX "XXXXXX"));
    const int file = mkstemp(path);
    if (file < 0)
        return fail(FAILED, "%s: cannot be written: %s", dir, strerror(errno));
    close(file);
    return OK;
}

// The ranks agree on the result, so a rank that does not see the file only reports its own
// directory. Rank 0 is not asked: it has made the file, perhaps by another path.
static Status look_for_token(const Comm *comm, const char *dir, const char *token)
{
    char path[PATH_BYTES];
    const char *slash = strrchr(token, '/');
    TRY(file_join(path, dir, slash != NULL ? slash + 1 : token));
    if (file_exists(path) || comm->rank == 0)
        return OK;
    return fail(
        BAD_INPUT,
        "%s: is not the directory of rank 0; take one on a file system that all ranks share", dir);
}

Status shared_dir_check(const Comm *comm, const char *dir)
{
    char token[PATH_BYTES] = "";
    if (comm->size == 1)
        return OK;
    TRY(comm_agree_of(comm, comm->rank == 0, comm->rank == 0 ? make_token(token, dir) : OK));
    comm_broadcast(comm, token, sizeof token, 0);
    const Status status = comm_agree(comm, look_for_token(comm, dir, token));
    if (comm->rank == 0)
        unlink(token);
    return status;
}

void shared_dir_clear(const char *dir)
{
    DIR *entries = opendir(dir);
    if (entries == NULL)
        return;
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strncmp(entry->d_name, TOKEN_PREFIX, sizeof TOKEN_PREFIX - 1) == 0)
            unlinkat(dirfd(entries), entry->d_name, 0);
    closedir(entries);
}
