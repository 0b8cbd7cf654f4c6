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

// Names a set of validation windows: 8 hexadecimal digits of a checksum over where they come from
// and how many there are (train/validation.h), and the closing zero. Losses over different sets are
// not comparable.
enum { VALIDATION_SET_BYTES = 9 };

typedef struct RunState {
    int step;                             // the last finished one
    double loss, grad_norm;               // of that step; NaN before the first
    double valid_loss;                    // the last measured; NaN before the first
    int valid_step;                       // when it was measured; -1 before the first
    char valid_set[VALIDATION_SET_BYTES]; // what it was measured on; "": not known
    SpikeHistory spikes;
} RunState;

#endif
