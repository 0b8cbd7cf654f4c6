// An exclusive flock(2). The kernel drops it with the last descriptor of the open file, however the
// process ends, so a lock never outlives its holder and nothing has to be cleaned up; a file whose
// mere existence is the lock would. NFS on Linux maps flock() to locks of byte ranges, which hold
// across hosts. The line in the file is for people only.
#define _GNU_SOURCE // for flock
#include "base/file_lock.h"

#include "base/log.h"
#include "base/temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// The holder's line, for the message to others; "" if it is not written yet.
static void read_holder(char *out, size_t size_bytes, int file)
{
    ssize_t n = pread(file, out, size_bytes - 1, 0);
    out[n > 0 ? n : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

// Cut to 0 bytes first: the line of an earlier holder may be longer.
static Status write_holder(int file, const char *path, const char *host)
{
    char line[256], since[32];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", &utc);
    int n =
        snprintf(line, sizeof line, "pid %ld on %.128s, since %s\n", (long)getpid(), host, since);
    if (ftruncate(file, 0) != 0 || pwrite(file, line, (size_t)n, 0) != n)
        return fail(FAILED, "%s: cannot be written: %s", path, strerror(errno));
    return OK;
}

// Only "somebody else has it" is a refusal; any other answer means that there are no locks here.
static Status lock_file(int file, const char *path, LockRefusal refusal)
{
    while (flock(file, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EINTR)
            continue;
        if (errno == EWOULDBLOCK) {
            char holder[256];
            read_holder(holder, sizeof holder, file);
            return fail(BAD_INPUT, "%s: %s%s%s%s is writing here; %s", refusal.where, refusal.who,
                        holder[0] != '\0' ? " (" : "", holder, holder[0] != '\0' ? ")" : "",
                        refusal.advice);
        }
        log_warn("%s: the file system has no locks (%s): see to it that nothing else writes in "
                 "this directory",
                 path, strerror(errno));
        break;
    }
    return OK;
}

// Whether the open file still has its name: a holder may have removed it before it let go.
static bool is_named(int file, const char *path)
{
    struct stat opened, named;
    return fstat(file, &opened) == 0 && stat(path, &named) == 0 && opened.st_dev == named.st_dev &&
           opened.st_ino == named.st_ino;
}

// O_NONBLOCK: opening must not wait where somebody made a pipe of that name. O_CLOEXEC: a child
// would hold the lock on.
Status file_lock_take(FileLock *out, const char *path, const char *host, LockRefusal refusal)
{
    Status status;
    int file;
    for (;;) {
        file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
        if (file < 0)
            return fail(FAILED, "%s: cannot be written: %s", path, strerror(errno));
        TRY_GOTO(close_file, lock_file(file, path, refusal));
        if (is_named(file, path))
            break;
        close(file);
    }
    TRY_GOTO(close_file, write_holder(file, path, host));
    *out = (FileLock){.file = file, .is_open = true};
    snprintf(out->path, sizeof out->path, "%s", path);
    return OK;
close_file:
    close(file);
    return status;
}

void file_lock_release(FileLock *lock)
{
    if (!lock->is_open)
        return;
    if (ftruncate(lock->file, 0) != 0) // the lock is what counts, not the line
        log_warn("%s: %s", lock->path, strerror(errno));
    close(lock->file);
    *lock = (FileLock){0};
}

Status file_lock_directory(FileLock *out, const char *dir)
{
    char path[PATH_BYTES], host[256];
    const bool made_dir = !file_exists(dir);
    TRY(file_make_dirs(dir));
    TRY(file_join(path, dir, ".lock"));
    if (gethostname(host, sizeof host) != 0)
        strcpy(host, "?");
    host[sizeof host - 1] = '\0';
    TRY(file_lock_take(
        out, path, host,
        (LockRefusal){dir, "another process", "wait for it or name another directory"}));
    out->made_dir = made_dir;
    temporary_remove_dead(path);
    return OK;
}

// While it is held: a name that is removed later may be that of the next holder's file.
void file_lock_remove(FileLock *lock)
{
    if (!lock->is_open)
        return;
    if (unlink(lock->path) != 0 && errno != ENOENT)
        log_warn("%s: cannot be removed: %s; it locks nothing", lock->path, strerror(errno));
    if (lock->made_dir)
        rmdir(dirname(lock->path)); // fails where something was written
    close(lock->file);
    *lock = (FileLock){0};
}
