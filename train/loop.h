// The training loop: owns the state of a run on this rank and takes its steps.
//
//     Trainer trainer;
//     TRY(loop_start(&trainer, &config, &comm, &model));  // places memory, opens data; collective
//     status = loop_run(&trainer);                        // validate, step, step, ..., validate
//     loop_release(&trainer);
//
// A step, in train/loop.c, reads as seven calls: batch, forward, backward, reduce, guard, update,
// report. The global batch is G sequences; micro-batch m of step s is samples (s - 1) G + m B .. of
// the mixture, whatever the number of ranks.
#ifndef MHA2MLA_TRAIN_LOOP_H
#define MHA2MLA_TRAIN_LOOP_H

#include "base/arena.h"
#include "data/batch.h"
#include "data/mixture.h"
#include "model/transformer.h"
#include "train/comm.h"
#include "train/config.h"
#include "train/metrics.h"
#include "train/partition.h"
#include "train/turns.h"
#include "train/validation.h"

// What a rank holds besides the model, placed twice: to measure and to use.
typedef struct TrainerMemory {
    Arena gradients, moments, activations, scratch, communication;
    float *flat_grads; // [params_count] of a group of micro-batches
    float *own_sums;   // [partition.own_count] of the step; NULL: in flat_grads, of one round
    float *m, *v;      // [partition.own_count]
    float *received;   // [of the largest bucket]
    double *sums;      // [n_sums], see below
    Workspace ws;
    Batch batch;
} TrainerMemory;

typedef struct Trainer {
    const Config *config; // borrowed
    const Comm *comm;     // borrowed
    Model *model;         // borrowed; trained in place
    Partition partition;
    Turns turns;
    TrainerMemory memory;
    Params grads;
    Mixture *mixture;
    Validation validation;
    Metrics *metrics;  // borrowed; its file is rank 0's alone
    double valid_loss; // the newest; NaN before the first
} Trainer;

// Places everything with measuring arenas, or with allocated ones.
void loop_place(TrainerMemory *memory, const ModelShape *shape, const Partition *partition,
                const Turns *turns, int B, int T, int n_threads);

Status loop_start(Trainer *out, const Config *config, const Comm *comm, Model *model,
                  Metrics *metrics, const char *tokenizer_sha256);

// Trains to config->train.steps. FAILED with step, rank and samples named if a loss or gradient is
// not finite; the weights are then those before the step.
Status loop_run(Trainer *trainer);

void loop_release(Trainer *trainer);

#endif
