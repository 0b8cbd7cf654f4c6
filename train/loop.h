// The training loop: takes the steps of a trainer.
//
//     status = loop_run(&trainer);              // validate, step, step, ..., validate; collective
//
// A step, in train/loop.c, reads as seven calls: batch, forward, backward, reduce, guard, update,
// report. The global batch is G sequences; micro-batch m of step s is samples (s - 1) G + m B .. of
// the mixture, whatever the number of ranks.
#ifndef MHA2MLA_TRAIN_LOOP_H
#define MHA2MLA_TRAIN_LOOP_H

#include "train/trainer.h"

// Trains to config->train.steps, saving checkpoints as configured and at the end. STOPPED, with the
// cause as text, if a stop was asked for (train/stop.h) and the state is saved. FAILED with step,
// rank and samples named if a loss or gradient is not finite; the weights are then those before the
// step.
Status loop_run(Trainer *trainer);

#endif
