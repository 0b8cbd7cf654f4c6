// Finds the samples that made the loss or the gradient of a step infinite or NaN, and ends the run.
// The micro-batches of the step are run once more, each alone, with the parameters as they were
// before the step, so healthy steps pay nothing for it.
//
//     const GuardTraceRun run = {.comm = &comm, ..., .micro_batch = run_alone, .context = trainer};
//     return guard_trace_run(&run);             // FAILED, names the first bad micro-batch
//
// RUN/nonfinite-step-12.json gets loss, gradient norm, rank and samples of every micro-batch.
#ifndef MHA2MLA_TRAIN_GUARD_TRACE_H
#define MHA2MLA_TRAIN_GUARD_TRACE_H

#include "data/mixture.h"
#include "train/parallel/batch_schedule.h"
#include "train/parallel/comm.h"

// All borrowed.
typedef struct GuardTraceRun {
    const Comm *comm;
    const BatchSchedule *schedule; // each rank runs its own micro-batches
    const Mixture *mixture;        // names samples
    const char *run_dir;
    int step;
    double loss, grad_norm; // of the step
    int64_t first_sample;   // of the step
    int n_samples;          // of a micro-batch
    // Runs micro-batch m of the step alone: its loss, mean over its targets, and the norm of its
    // part of the step's gradient. Called in the order of the schedule.
    Status (*micro_batch)(void *context, int step, int m, double *loss, double *grad_norm);
    void *context;
} GuardTraceRun;

// FAILED, or the first error of a micro-batch that could not be run. Collective.
Status guard_trace_run(const GuardTraceRun *run);

// A micro-batch that was run alone.
typedef struct GuardMicroBatch {
    int rank;
    int64_t first_sample;
    int n_samples;
    char source[128]; // names the first sample (mixture_describe)
    double loss, grad_norm;
} GuardMicroBatch;

typedef struct GuardTrace {
    int step;
    double loss, grad_norm;               // of the step
    const GuardMicroBatch *micro_batches; // borrowed [count], all of the step
    int count;
    const char *file; // borrowed
} GuardTrace;

// The FAILED of such a step. With `writes` the file gets every micro-batch; should that fail, the
// text tells why. Not collective.
Status guard_trace_report(const GuardTrace *trace, bool writes);

#endif
