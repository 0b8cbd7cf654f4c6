// Whether this process does anything, seen from outside the work: a rank deep in one long product
// or one large file gives no heartbeat (train/parallel/watchdog.h), and is alive all the same.
//
//     Activity activity = activity_start();             // on the thread that does the work
//     ... later, on the thread that watches, every elapsed_s seconds ...
//     if (activity_has_advanced(&activity, elapsed_s))
//         ... it computes, reads or writes ...
//
// Computing is time that the first thread spends on a core: it takes part in every OpenMP loop.
// Reading and writing are the bytes of all threads but the one that asks. A process that is
// stopped, or stuck in the kernel because a disk or a server does not answer, shows neither. One
// that spins in MPI does: whether it waits for others has to be known otherwise.
#ifndef MHA2MLA_TRAIN_PARALLEL_ACTIVITY_H
#define MHA2MLA_TRAIN_PARALLEL_ACTIVITY_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

typedef struct Activity {
    clockid_t clock;     // CPU time of the thread that called activity_start()
    double cpu_s;        // of it, when last looked at
    int64_t moved_bytes; // read and written by then; -1: not looked at yet
} Activity;

Activity activity_start(void);

// Since the call before. Always from the same thread.
bool activity_has_advanced(Activity *activity, double elapsed_s);

#endif
