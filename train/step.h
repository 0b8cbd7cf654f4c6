// One step of training: batch, forward, backward, reduce, guard, update, report.
//
//     phases_start(&trainer.phases, trainer.progress.step);
//     TRY(feed_start(&trainer.feed, trainer.progress.step + 1));
//     while (trainer.progress.step < steps)
//         TRY(step_run(&trainer, trainer.progress.step + 1));
//
// The global batch of a step is G sequences, cut into micro-batches of B; micro-batch m of step s
// is samples (s - 1) G + m B .. of the mixture, whatever the number of ranks. Which rank computes
// which is train/parallel/batch_schedule.h, what the ranks exchange meanwhile train/reducer.h.
#ifndef MHA2MLA_TRAIN_STEP_H
#define MHA2MLA_TRAIN_STEP_H

#include "train/trainer.h"

// Takes the step after trainer->progress.step. On return updated parameters may still be on their
// way: reducer_wait_all() before anything else that is collective. FAILED with step, rank and
// samples named if a loss or gradient is not finite, or if too many steps in a row are skipped; the
// parameters are then those before the step. Collective.
Status step_run(Trainer *trainer, int step);

#endif
