// A stopwatch with one running phase: entering a phase ends the one before. So the phases of a rank
// add up to its time, whatever the order of the calls, and a phase that interrupts another one
// (waiting for parameters within forward) gives back what phases_enter() returned. Nothing is
// communicated before phases_gather().
#include "train/metrics/phases.h"

#include "base/log.h"
#include "train/parallel/watchdog.h"

#include <string.h>

// Keys of metrics.jsonl, with _s behind, and rows of the table.
static const char *const names[N_PHASES] = {
    [PHASE_DATA] = "data",     [PHASE_FORWARD] = "forward",       [PHASE_BACKWARD] = "backward",
    [PHASE_REDUCE] = "reduce", [PHASE_UPDATE] = "update",         [PHASE_GATHER] = "gather",
    [PHASE_SAVE] = "save",     [PHASE_VALIDATION] = "validation", [PHASE_EVALUATION] = "evaluation",
};

const char *phases_name(Phase phase)
{
    return names[phase];
}

// The table of a resumed run begins at the step it resumes from.
void phases_start(Phases *phases, int step)
{
    *phases = (Phases){.step = step, .first_step = step, .reported_step = step};
}

void phases_begin_step(Phases *phases, int step)
{
    phases->step = step;
}

// Adds the time since the last change to the running phase.
static void account(Phases *phases, double now_s)
{
    if (phases->is_running)
        phases->seconds[phases->now] += now_s - phases->since_s;
    phases->since_s = now_s;
}

// The watchdog hears of every change too, so that its report can say in which phase a rank hangs.
Phase phases_enter(Phases *phases, Phase phase)
{
    const Phase before = phases->now;
    watchdog_phase(names[phase], phases->step);
    account(phases, log_seconds());
    phases->now = phase;
    phases->is_running = true;
    return before;
}

void phases_leave(Phases *phases)
{
    account(phases, log_seconds());
    phases->is_running = false;
}

// Since the last call, for the line of a step; the table of a report has a mark of its own.
void phases_take(Phases *phases, double seconds[N_PHASES])
{
    account(phases, log_seconds());
    for (int i = 0; i < N_PHASES; i++) {
        seconds[i] = phases->seconds[i] - phases->taken[i];
        phases->taken[i] = phases->seconds[i];
    }
}

// Seconds since the last report. Three collectives, whatever the number of phases: sums, extremes,
// and the lowest rank that has the maximum.
void phases_gather(PhaseTable *out, const Phases *phases, const Comm *comm)
{
    // One maximum finds both ends: that of the negated seconds is the negated minimum. The rank is
    // negated too, so that the lowest of equals wins.
    double own[N_PHASES], extremes[2 * N_PHASES], ranks[N_PHASES];
    for (int i = 0; i < N_PHASES; i++) {
        own[i] = phases->seconds[i] - phases->reported[i];
        out->mean[i] = extremes[i] = own[i];
        extremes[N_PHASES + i] = -own[i];
    }
    comm_sum_doubles(comm, out->mean, N_PHASES);
    comm_max_doubles(comm, extremes, 2 * N_PHASES);
    for (int i = 0; i < N_PHASES; i++)
        ranks[i] = own[i] == extremes[i] ? -comm->rank : -comm->size;
    comm_max_doubles(comm, ranks, N_PHASES);
    for (int i = 0; i < N_PHASES; i++) {
        out->mean[i] /= comm->size;
        out->max[i] = extremes[i];
        out->min[i] = -extremes[N_PHASES + i];
        out->slowest[i] = (int)-ranks[i];
    }
}

// All ranks take part in the table; rank 0's log prints it.
void phases_report(Phases *phases, const Comm *comm, int step)
{
    const int first = phases->reported_step + 1;
    if (step < first)
        return;
    PhaseTable table;
    double total_s = 0;
    account(phases, log_seconds());
    phases_gather(&table, phases, comm);
    for (int i = 0; i < N_PHASES; i++)
        total_s += table.mean[i];
    log_info("seconds of a rank in steps %d to %d, over %d rank%s:", first, step, comm->size,
             comm->size == 1 ? "" : "s");
    log_info("%12s %10s %10s %10s  %s %7s", "", "min", "mean", "max", "slowest", "share");
    for (int i = 0; i < N_PHASES; i++)
        if (table.max[i] > 0)
            log_info("%12s %10.3f %10.3f %10.3f  %7d %5.1f %%", names[i], table.min[i],
                     table.mean[i], table.max[i], table.slowest[i], 100 * table.mean[i] / total_s);
    memcpy(phases->reported, phases->seconds, sizeof phases->reported);
    phases->reported_step = step;
}

// As if nothing had been reported yet.
void phases_report_all(Phases *phases, const Comm *comm, int step)
{
    memset(phases->reported, 0, sizeof phases->reported);
    phases->reported_step = phases->first_step;
    phases_report(phases, comm, step);
}
