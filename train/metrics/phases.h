// Where the time of a rank goes, by phases of the training loop: a clock read at each change.
//
//     Phases phases;
//     phases_start(&phases, resumed_step);
//     phases_begin_step(&phases, step);
//     phases_enter(&phases, PHASE_FORWARD);   // ends the phase before
//     ...
//     const Phase before = phases_enter(&phases, PHASE_REDUCE);
//     ...                                     // a wait inside the forward pass
//     phases_enter(&phases, before);
//     phases_leave(&phases);
//     phases_report(&phases, &comm, step);    // collective: a table over all ranks, on rank 0
//     phases_report_all(&phases, &comm, step);
//
// Whoever does the work of a phase enters it; entering is also a sign of life for the watchdog
// (train/parallel/watchdog.h), which names the phase if the rank stalls in it.
//
// Communication that overlaps with computation counts as computation: reduce and gather are the
// time that is left exposed. Waiting for other ranks counts as the phase that waits, so a rank that
// is slow in its forward pass shows as reduce of the others.
#ifndef MHA2MLA_TRAIN_METRICS_PHASES_H
#define MHA2MLA_TRAIN_METRICS_PHASES_H

#include "train/parallel/comm.h"

typedef enum Phase {
    PHASE_DATA,    // waiting for the next micro-batch
    PHASE_FORWARD, // the layers and the loss
    PHASE_BACKWARD,
    PHASE_REDUCE, // waiting for the sums over ranks, agreeing, global norm and loss
    PHASE_UPDATE, // AdamW, reporting the step
    PHASE_GATHER, // waiting for parameters that other ranks have updated
    PHASE_SAVE,   // waiting for checkpoints
    PHASE_VALIDATION,
    PHASE_EVALUATION, // on tasks
    N_PHASES
} Phase;

typedef struct Phases {
    double seconds[N_PHASES]; // of this rank since phases_start()
    int step;                 // at hand, for the watchdog
    bool is_running;
    Phase now;
    double since_s;
    double taken[N_PHASES];    // `seconds` at the last phases_take()
    double reported[N_PHASES]; // `seconds` at the last report
    int first_step;            // the last step before phases_start()
    int reported_step;         // the last step of the last report
} Phases;

// `step` is the last finished step; 0: the run begins.
void phases_start(Phases *phases, int step);

// The phases that follow belong to this step.
void phases_begin_step(Phases *phases, int step);

// "data", "forward", ...; static text.
const char *phases_name(Phase phase);

// Ends the running phase, if there is one, and begins this one. Returns the phase that ran before,
// so that a nested wait can go back to it. From the main thread only.
Phase phases_enter(Phases *phases, Phase phase);

// Ends the running phase; none runs until the next phases_enter().
void phases_leave(Phases *phases);

// The seconds of each phase since the last call, the running one included.
void phases_take(Phases *phases, double seconds[N_PHASES]);

// Minimum, mean and maximum over ranks of the seconds of each phase since the last report, and the
// rank with the maximum.
typedef struct PhaseTable {
    double min[N_PHASES], mean[N_PHASES], max[N_PHASES];
    int slowest[N_PHASES]; // the lowest of equals
} PhaseTable;

// Collective; nothing is allocated.
void phases_gather(PhaseTable *out, const Phases *phases, const Comm *comm);

// Prints that table through base/log, for the steps since the last report up to `step`; prints
// nothing if there are none. Collective.
void phases_report(Phases *phases, const Comm *comm, int step);

// The same for all steps since the start.
void phases_report_all(Phases *phases, const Comm *comm, int step);

#endif
