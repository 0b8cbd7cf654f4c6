// What a checkpoint stores of a run besides its parameters and moments: how far it is and what it
// has measured.
#ifndef MHA2MLA_TRAIN_CHECKPOINT_RUN_STATE_H
#define MHA2MLA_TRAIN_CHECKPOINT_RUN_STATE_H

#include <stdint.h>

// What the spike guard (train/guard.h) remembers of gradient norms. All zero at the start of a run;
// stored with all bits, so that a resumed run skips the same steps.
typedef struct SpikeHistory {
    double mean; // of the norms of accepted steps: plain for the first `window`, then exponential
    int64_t n_accepted, n_skipped;
    int64_t n_skipped_in_row; // until now
} SpikeHistory;

typedef struct RunState {
    int step;               // the last finished one
    double loss, grad_norm; // of that step; NaN before the first
    double valid_loss;      // the last measured; NaN before the first
    int valid_step;         // when it was measured; -1 before the first
    SpikeHistory spikes;
} RunState;

#endif
