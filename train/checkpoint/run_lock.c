#include "train/checkpoint/run_lock.h"

Status run_lock_take(FileLock *out, const char *run_dir, const char *host)
{
    char path[PATH_BYTES];
    TRY(file_join(path, run_dir, "lock"));
    return file_lock_take(out, path, host,
                          (LockRefusal){run_dir, "another run", "wait for it or set --run.name"});
}
