// Skips the update of a step whose gradient norm is a spike.
//
//     SpikeHistory spikes = {0};                       // stored in checkpoints
//     TRY(guard_check_spike(&skips, &spikes, step, grad_norm, 8, 100));
//     if (!skips)
//         update(...);
//
// Norms are those of the whole gradient, the same bits on any number of ranks, and so are the
// decisions. A loss or gradient that is not finite is no spike: train/guard_trace.h ends the run.
#ifndef MHA2MLA_TRAIN_GUARD_H
#define MHA2MLA_TRAIN_GUARD_H

#include "base/status.h"
#include "train/checkpoint/run_state.h"

#include <stdint.h>

// Number of steps skipped in a row after which the run ends: a norm that stays high is no spike,
// and a run that skips all its steps would continue without learning.
enum { GUARD_MAX_SKIPS_IN_ROW = 10 };

// *skips: whether the gradient norm exceeds `factor` times its running mean. The first `window`
// accepted steps are never skipped - at the start norms fall by orders of magnitude - and enter the
// mean with equal weight; later each accepted step enters it with weight 1 / window. Skipped steps
// do not enter it. factor 0: never skips. FAILED after GUARD_MAX_SKIPS_IN_ROW.
Status guard_check_spike(bool *skips, SpikeHistory *spikes, int step, double grad_norm,
                         double factor, int window);

#endif
