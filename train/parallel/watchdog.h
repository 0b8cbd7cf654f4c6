// A rank that stops answering is named, and the job ends instead of hanging.
//
//     WatchdogSettings settings = {.dir = "runs/x/ranks", .rank = 1, .size = 4, .hosts = hosts,
//                                  .minutes = 30, .limit_name = "run.stall_minutes"};
//     TRY(watchdog_start(&settings));            // train/parallel/watch.h does it for all ranks
//     watchdog_phase("backward", step);          // at each new phase of a step: a heartbeat
//     watchdog_wait_begin();                     // train/parallel/comm.c, around every call of MPI
//     MPI_Allreduce(...);
//     watchdog_wait_end();
//     watchdog_stop();
//
// Each rank has a watchdog thread, which never calls MPI: the ranks talk through files in `dir`,
// which must be one that all of them see. In a healthy run no file is written. A rank that has
// waited for others for a quarter of the time asks: it writes rank-0003-waits.json and renews it.
// That makes the watchdogs of all ranks write what theirs does (rank-0005-busy.json). Whoever
// writes nothing is stopped, dead or cut off: silent.
//
// Signs of life are heartbeats and, while a rank does not wait for others, that its process
// computes, reads or writes (train/parallel/activity.h): hours in one decomposition or one file are
// no stall. A rank blocked in MPI, stopped by a signal, or stuck in the kernel because a disk does
// not answer shows none.
//
// When no rank that answers has shown a sign of life for the whole time, the lowest rank that waits
// reports it in one line and exits with status 1, at which mpirun and srun end the others:
//
//     stalled for 30 min in reduce of step 412: rank 3 on node7 is silent since
//     2026-01-31T12:00:00Z; ranks 0-2, 4-7 wait; raise run.stall_minutes ...
//
// Time in which a whole job is suspended does not count.
#ifndef MHA2MLA_TRAIN_PARALLEL_WATCHDOG_H
#define MHA2MLA_TRAIN_PARALLEL_WATCHDOG_H

#include "base/status.h"

#include <stdint.h>

enum { WATCHDOG_HOST_BYTES = 64 };

typedef struct WatchdogSettings {
    const char *dir; // of the ranks' files, made when there is one to write; copied
    int rank, size;
    const char (*hosts)[WATCHDOG_HOST_BYTES]; // [size], copied
    double minutes;                           // 0: nothing is watched
    const char *limit_name;                   // what sets `minutes`, for the report; static text
    bool is_temporary; // the report removes the files; ranks that still run may write theirs again
} WatchdogSettings;

// Starts this rank's watchdog, which watches the calling thread; rank 0 removes files of a job
// before. At most one per process. FAILED: no memory or no thread.
Status watchdog_start(const WatchdogSettings *settings);

// Tells that the rank begins or continues a phase: a heartbeat. `phase` is static text; step 0:
// before or after the steps. Costs a few stores, also when nothing is watched; from the main thread
// only.
void watchdog_phase(const char *phase, int64_t step);

// From any thread, inside long work.
void watchdog_heartbeat(void);

// The rank waits for others from here to there. Do not nest.
void watchdog_wait_begin(void);
void watchdog_wait_end(void);

// Ends the watchdog and removes what it wrote.
void watchdog_stop(void);

#endif
