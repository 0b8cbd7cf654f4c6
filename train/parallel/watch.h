// The watchdogs of all ranks of a job (train/parallel/watchdog.h), started together. Every command
// on ranks is watched: comm_run() starts with watch_command(), and a command with a run directory
// or a time limit of its own goes over to that when it knows it.
//
//     TRY(watch_command(&comm));                                  // comm_run() does
//     TRY(watch_ranks(&comm, NULL, 30, "run.stall_minutes"));     // another limit
//     TRY(watch_ranks(&comm, "runs/x/ranks", 30, "run.stall_minutes"));
//     watchdog_stop();                                            // comm_stop() does
//
// All are collective and replace the watchdogs that ran before. One rank is not watched.
#ifndef MHA2MLA_TRAIN_PARALLEL_WATCH_H
#define MHA2MLA_TRAIN_PARALLEL_WATCH_H

#include "train/parallel/comm.h"

// The limit of a command that no config sets one for: rank 0's environment variable, in minutes, 0
// for none; 30 where it is not set.
#define WATCH_LIMIT_VARIABLE "MHA2MLA_STALL_MINUTES"

// Watches with that limit. BAD_INPUT if the variable is no number.
Status watch_command(const Comm *comm);

// Watches with a limit of `minutes`, 0 for none, that `limit_name`, static text, tells how to set.
// `dir` is for the ranks' files; NULL for a temporary one: in $TMPDIR where all ranks are on one
// host, else in rank 0's working directory. Where the ranks do not share that either, a warning
// says that no rank is watched.
Status watch_ranks(const Comm *comm, const char *dir, double minutes, const char *limit_name);

#endif
