// One run per run directory: a lock on RUN/lock that ends with the process, however it ends.
//
//     RunLock lock = {0};
//     if (comm.rank == 0)
//         status = run_lock_take(&lock, run_dir, comm.host);  // before anything is written there
//     ...
//     run_lock_release(&lock);
//
// The lock is flock()'s: it belongs to the open file, so it goes with the process that holds it -
// after kill -9 as after a crash of the machine - and nothing stale is left to clean up; and
// closing another handle of the file does not drop it, as it would with fcntl()'s older locks.
// Linux hands it to the server on NFS (as a lock of the whole file), so it holds between machines;
// on Lustre with the mount option flock. A file system without locks cannot keep two runs apart:
// that is warned of, and the run goes on.
//
// RUN/lock stays behind, empty: removing it would let two runs hold locks on two files of one name.
// Not collective.
#ifndef MHA2MLA_TRAIN_CHECKPOINT_RUN_LOCK_H
#define MHA2MLA_TRAIN_CHECKPOINT_RUN_LOCK_H

#include "base/status.h"

typedef struct RunLock {
    int file; // owned; valid if is_open
    bool is_open;
} RunLock;

// BAD_INPUT, with process, host and start of the other run, if one is writing in run_dir; FAILED if
// RUN/lock cannot be written.
Status run_lock_take(RunLock *out, const char *run_dir, const char *host);

void run_lock_release(RunLock *lock);

#endif
