// The training loop: steps, and between them validation, saving, stopping and reports.
//
//     status = loop_run(&trainer);              // validate, step, step, ..., validate
//
// A step itself is train/step.c.
#ifndef MHA2MLA_TRAIN_LOOP_H
#define MHA2MLA_TRAIN_LOOP_H

#include "train/trainer.h"

// Trains from trainer->progress.step to config->train.steps. Checkpoints are saved as configured
// and at the end; OK leaves the replica exact (replica_exact_model()). STOPPED, with the cause as
// text, if a stop was requested (train/stop.h) and the state is saved. FAILED with step, rank and
// samples named if a loss or gradient is not finite; the parameters are then those before that
// step. All ranks return the same status. Collective.
Status loop_run(Trainer *trainer);

#endif
