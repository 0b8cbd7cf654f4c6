// Where the time of a rank goes, by phases of the loop: a clock read at each change, nothing else.
//
//     Phases phases;
//     phases_start(&phases, resumed_step);
//     phases_enter(&phases, PHASE_FORWARD);   // ends the phase before
//     ...
//     phases_leave(&phases);
//     phases_report(&phases, &comm, step);    // collective: a table over all ranks, on rank 0
//     phases_report_all(&phases, &comm, step);
//
// What is exchanged while a rank computes counts as computing; reduce and gather are what is left.
// Waiting for other ranks counts as the phase that waits: a rank that is slow in forward shows as
// the others' reduce.
#ifndef MHA2MLA_TRAIN_METRICS_PHASES_H
#define MHA2MLA_TRAIN_METRICS_PHASES_H

#include "train/parallel/comm.h"

typedef enum Phase {
    PHASE_DATA,
    PHASE_FORWARD,
    PHASE_BACKWARD,
    PHASE_REDUCE, // waiting for the sums over ranks, agreeing, global norm and loss
    PHASE_UPDATE, // AdamW, reporting the step
    PHASE_GATHER, // waiting for parameters that other ranks have updated
    PHASE_SAVE,   // what the training waits for checkpoints
    PHASE_VALIDATION,
    N_PHASES
} Phase;

typedef struct Phases {
    double seconds[N_PHASES]; // of this rank since it started
    bool is_running;
    Phase now;
    double since_s;
    double taken[N_PHASES];        // `seconds` at the last phases_take()
    double reported[N_PHASES];     // and at the last report
    int first_step, reported_step; // the last ones before the first and the next report
} Phases;

// `step` is the last one before; 0: from the beginning.
void phases_start(Phases *phases, int step);

// "data", "forward", ...; static text.
const char *phases_name(Phase phase);

// Ends the phase that is running, if one is, and begins this one; goes on if it is the same.
void phases_enter(Phases *phases, Phase phase);
void phases_leave(Phases *phases);

// The seconds of each phase since the last call, also of the one that is running.
void phases_take(Phases *phases, double seconds[N_PHASES]);

// Over ranks: least, mean and most seconds of each phase since the last report, and the rank with
// the most. Collective; nothing is allocated.
typedef struct PhaseTable {
    double least[N_PHASES], mean[N_PHASES], most[N_PHASES];
    int slowest[N_PHASES]; // the lowest of equals
} PhaseTable;

void phases_gather(PhaseTable *out, const Phases *phases, const Comm *comm);

// Prints that table through base/log, for the steps since the last report up to `step`; nothing if
// there was none. Collective.
void phases_report(Phases *phases, const Comm *comm, int step);

// The same for all steps since the start.
void phases_report_all(Phases *phases, const Comm *comm, int step);

#endif
