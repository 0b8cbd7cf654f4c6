// What watchdogs tell each other (train/parallel/watchdog.h): a rank's file, and the
// line that names the ranks a job is waiting for.
//
//     TRY(watchdog_write(dir, 3, &own, true));     // DIR/rank-0003-waits.json
//     TRY(watchdog_read(&other, dir, 5));
//     watchdog_describe(text, sizeof text, ranks, hosts, 8, 0, 30, "run.stall_minutes");
#ifndef MHA2MLA_TRAIN_PARALLEL_WATCHDOG_REPORT_H
#define MHA2MLA_TRAIN_PARALLEL_WATCHDOG_REPORT_H

#include "train/parallel/watchdog.h"

#include <stddef.h>

typedef enum WatchdogState {
    WATCHDOG_BUSY,
    WATCHDOG_WAITS,
    WATCHDOG_SILENT,
} WatchdogState;

typedef struct WatchdogRank {
    WatchdogState state;
    char phase[32];
    int64_t step;  // 0: none
    double idle_s; // since the last sign of life
    int64_t since; // seconds since 1970: the same as a time of day
    int64_t beat;  // counts the rank's answers, so that an old file is told from a new one
} WatchdogRank;

// Writes the rank's file. `asks`: the rank waits and wants to hear from the others.
Status watchdog_write(const char *dir, int rank, const char *host, const WatchdogRank *own,
                      bool asks);

// Reads it; BAD_INPUT if there is none or it is damaged.
Status watchdog_read(WatchdogRank *out, const char *dir, int rank);

// Removes it.
void watchdog_remove(const char *dir, int rank);

// Whether a rank but `rank` asks. A directory that is not there asks nothing.
bool watchdog_is_asked(const char *dir, int rank);

// One line about all ranks, as the rank `reporter` sees them.
void watchdog_describe(char *out, size_t size_bytes,
                       const WatchdogRank *ranks,                // [n_ranks]
                       const char (*hosts)[WATCHDOG_HOST_BYTES], // [n_ranks]
                       int n_ranks, int reporter, double minutes, const char *limit_name);

#endif
