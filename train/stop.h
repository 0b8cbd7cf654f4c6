// Requests to stop a run: SIGTERM, SIGINT, SIGUSR1, or a limit of minutes. They set a flag that the
// training loop reads once a step; the ranks agree on it (train/parallel/comm.h), save, and leave
// with STOPPED.
//
//     stop_install();                    // before MPI_Init, so that no rank is without handlers
//     stop_after_minutes(230);           // run.max_minutes; 0: no limit
//     for (...)
//         if (stop_requested())          // on this rank: agree before leaving a collective
//             ...  stop_cause_name(stop_cause()) ...
//
// A second SIGTERM or SIGINT ends the process at once with status 128 + signal; under Slurm it does
// not: there SIGTERM may come twice, and SIGKILL follows anyway after the site's KillWait. One that
// follows within a second is the same request: launchers forward what the process has got already.
// SIGUSR1 never ends it: Slurm sends it as a warning (--signal=USR1@180) and SIGTERM when time is
// up, and a save that is under way then still has the site's KillWait. Under mpirun use SIGUSR1,
// which it hands on; SIGTERM and Ctrl-C make it kill its ranks a second later.
//
// Not collective. The state belongs to the process.
#ifndef MHA2MLA_TRAIN_STOP_H
#define MHA2MLA_TRAIN_STOP_H

#include "base/status.h"

// Causes are signal numbers, or this: above all of them, so that the ranks' largest cause is the
// one to name.
enum { STOP_MINUTES = 1000 };

// Forgets earlier requests, starts the clock of stop_after_minutes(), installs the handlers. A
// signal that the parent ignores (nohup, background shells) stays ignored.
void stop_install(void);

// Counts from stop_install(); 0: no limit.
void stop_after_minutes(double minutes);

bool stop_requested(void);

// STOPPED, with the cause as its text, if this rank is asked to stop. Long work passes it through
// comm_agree() now and then.
Status stop_check(void);

// What asked first; 0 if nothing did.
int stop_cause(void);

// "SIGTERM", "run.max_minutes".
const char *stop_cause_name(int cause);

#endif
