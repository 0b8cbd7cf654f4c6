#define _GNU_SOURCE // mkstemp
#include "train/parallel/shared_dir.h"

#include "base/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// A name that was never there: what a network file system remembers of its absence does not matter.
static Status make_token(char path[PATH_BYTES], const char *dir)
{
    TRY(file_join(path, dir, ".shared-XXXXXX"));
    const int file = mkstemp(path);
    if (file < 0)
        return fail(FAILED, "%s: cannot be written: %s", dir, strerror(errno));
    close(file);
    return OK;
}

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
