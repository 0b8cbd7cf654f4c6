// What stands between a step's gradient and the update: spikes of its norm that are skipped, and a
// loss or gradient that is no number, which ends the run before the weights are touched.
//
//     SpikeHistory spikes = {0};                       // stored in checkpoints
//     TRY(guard_check_spike(&skips, &spikes, step, grad_norm, 8, 100));
//     if (!skips)
//         update(...);
//
// Norms are the global ones, the same bits on any number of ranks, and so are the decisions.
//
// A loss or gradient that is not finite is traced by running the step's micro-batches once more,
// each alone, with the weights as they were: nothing is paid for it in healthy steps.
//
//     GuardTrace trace = {.step = step, .micro_batches = traced, .count = n, .file = path};
//     return guard_report_nonfinite(&trace, comm.rank == 0);
#ifndef MHA2MLA_TRAIN_GUARD_H
#define MHA2MLA_TRAIN_GUARD_H

#include "base/status.h"
#include "train/checkpoint/run_state.h"

#include <stdint.h>

// Skips in a row after which the run ends: a norm that stays is no spike, and a run that skips all
// its steps would go on without learning.
enum { GUARD_MOST_SKIPS_IN_ROW = 10 };

// Whether the step is to be skipped: its norm is above `factor` times the mean. The first `window`
// accepted steps are never skipped - at the start norms fall by orders of magnitude - and their
// mean is plain; later each accepted step enters it with weight 1 / window. Skipped steps do not
// enter it. factor 0: never skips. FAILED after GUARD_MOST_SKIPS_IN_ROW.
Status guard_check_spike(bool *skips, SpikeHistory *spikes, int step, double grad_norm,
                         double factor, int window);

// A micro-batch run alone.
typedef struct GuardMicroBatch {
    int rank;
    int64_t first_sample;
    int n_samples;
    char source[128];       // the first sample in words (mixture_describe)
    double loss, grad_norm; // mean over its targets; of its part of the step's gradient
} GuardMicroBatch;

typedef struct GuardTrace {
    int step;
    double loss, grad_norm;               // of the step
    const GuardMicroBatch *micro_batches; // borrowed [count], all of the step
    int count;
    const char *file; // borrowed; RUN/nonfinite-step-12.json
} GuardTrace;

// The FAILED of such a step, naming the first micro-batch that is not finite. With `writes` the
// file gets every micro-batch of the step; should that fail, the text says so.
Status guard_report_nonfinite(const GuardTrace *trace, bool writes);

#endif
