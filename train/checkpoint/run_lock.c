// An exclusive flock(2) on RUN/lock. The kernel drops it with the last descriptor of the open file,
// however the process ends, so a lock never outlives its run and nothing has to be cleaned up; a
// file whose mere existence is the lock would. NFS on Linux maps flock() to locks of byte ranges,
// which hold across hosts. The line in the file is for people only.
#define _GNU_SOURCE // for flock
#include "train/checkpoint/run_lock.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
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

// Only "somebody else has it" refuses the run; any other answer means that there are no locks here.
static Status lock_file(int file, const char *path, const char *run_dir)
{
    while (flock(file, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EINTR)
            continue;
        if (errno == EWOULDBLOCK) {
            char holder[256];
            read_holder(holder, sizeof holder, file);
            return fail(
                BAD_INPUT, "%s: another run%s%s%s is writing here; wait for it or set --run.name",
                run_dir, holder[0] != '\0' ? " (" : "", holder, holder[0] != '\0' ? ")" : "");
        }
        log_warn("%s: the file system has no locks (%s): see to it that no second run is started "
                 "in this directory",
                 path, strerror(errno));
        break;
    }
    return OK;
}

// O_NONBLOCK: opening must not wait where somebody made a pipe of that name. O_CLOEXEC: a child
// would hold the lock on.
Status run_lock_take(RunLock *out, const char *run_dir, const char *host)
{
    char path[PATH_BYTES];
    TRY(file_join(path, run_dir, "lock"));
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    if (file < 0)
        return fail(FAILED, "%s: cannot be written: %s", path, strerror(errno));
    Status status;
    TRY_GOTO(close_file, lock_file(file, path, run_dir));
    TRY_GOTO(close_file, write_holder(file, path, host));
    *out = (RunLock){.file = file, .is_open = true};
    return OK;
close_file:
    close(file);
    return status;
}

void run_lock_release(RunLock *lock)
{
    if (!lock->is_open)
        return;
    if (ftruncate(lock->file, 0) != 0) // the lock is what counts, not the line
        log_warn("lock of the run: %s", strerror(errno));
    close(lock->file);
    *lock = (RunLock){0};
}
