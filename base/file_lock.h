// Locks between processes, and between hosts where the file system has them.
//
//     FileLock lock = {0};
//     TRY(file_lock_directory(&lock, "out"));
//     ...
//     file_lock_remove(&lock);
//
// The lock is flock()'s: it belongs to the open file, so it goes with the process that holds it -
// after kill -9 as after a crash of the machine - and nothing stale is left to clean up; and
// closing another handle of the file does not drop it, as it would with fcntl()'s older locks.
// Linux hands it to the server on NFS (as a lock of the whole file), so it holds between machines;
// on Lustre with the mount option flock. A file system without locks cannot keep two processes
// apart: that is warned of, and the work goes on. Not collective.
#ifndef MHA2MLA_BASE_FILE_LOCK_H
#define MHA2MLA_BASE_FILE_LOCK_H

#include "base/file.h"

typedef struct FileLock {
    int file; // owned; valid if is_open
    bool is_open;
    bool made_dir; // file_lock_directory() has
    char path[PATH_BYTES];
} FileLock;

// The parts of the message where another process has the lock: "WHERE: WHO (pid 4711 on node7,
// since ...) is writing here; ADVICE".
typedef struct LockRefusal {
    const char *where, *who, *advice;
} LockRefusal;

// BAD_INPUT, with process, host and start of the other one, if the lock is held; FAILED if the file
// cannot be written.
Status file_lock_take(FileLock *out, const char *path, const char *host, LockRefusal refusal);

// Ends the lock; the file stays, empty. Does nothing if the lock is not held.
void file_lock_release(FileLock *lock);

// For outputs of many files: makes `dir` if it is not there, locks DIR/.lock, and removes what
// killed processes of this host have left. BAD_INPUT if another process is writing there.
Status file_lock_directory(FileLock *out, const char *dir);

// Ends the lock and removes its file, and the directory if file_lock_directory() has made it and
// nothing was written there.
void file_lock_remove(FileLock *lock);

#endif
