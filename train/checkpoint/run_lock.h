// One run per run directory: a lock on RUN/lock that ends with the process, however it ends.
//
//     FileLock lock = {0};
//     if (comm.rank == 0)
//         status = run_lock_take(&lock, run_dir, comm.host);  // before anything is written there
//     ...
//     file_lock_release(&lock);
//
// RUN/lock stays behind, empty. Not collective.
#ifndef MHA2MLA_TRAIN_CHECKPOINT_RUN_LOCK_H
#define MHA2MLA_TRAIN_CHECKPOINT_RUN_LOCK_H

#include "base/file_lock.h"

// BAD_INPUT, with process, host and start of the other run, if one is writing in run_dir; FAILED if
// RUN/lock cannot be written. Where the file system has no locks it warns and goes on.
Status run_lock_take(FileLock *out, const char *run_dir, const char *host);

#endif
