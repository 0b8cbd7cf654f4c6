// What a rank holds of a run: its share of the work, its memory, its data, and how far the run is.
//
//     Trainer trainer;
//     TRY(trainer_start(&trainer, &context, &replica, NULL)); // places memory, opens data
//     status = loop_run(&trainer);                           // train/loop.h
//     trainer_release(&trainer);
#ifndef MHA2MLA_TRAIN_TRAINER_H
#define MHA2MLA_TRAIN_TRAINER_H

#include "data/mixture.h"
#include "train/checkpoint/saver.h"
#include "train/config/config.h"
#include "train/feed.h"
#include "train/memory.h"
#include "train/metrics/metrics.h"
#include "train/metrics/phases.h"
#include "train/parallel/batch_schedule.h"
#include "train/parallel/comm.h"
#include "train/parallel/partition.h"
#include "train/reducer.h"
#include "train/replica.h"
#include "train/validation.h"

// An evaluation between steps that the loop calls by its interval (train/job/run_evaluation.h).
typedef struct TrainerEvaluation {
    // Evaluates the model as it is after `step` and reports to the metrics, which only rank 0 has
    // open. STOPPED if a stop is requested meanwhile. Collective.
    Status (*run)(void *context, const Model *model, Metrics *metrics, int step, int64_t tokens);
    void *context; // borrowed
    int every;     // steps; 0: only after the last
    int last_step; // that has been evaluated, the same on all ranks; -1: none
} TrainerEvaluation;

// What the trainer borrows from the run.
typedef struct TrainerContext {
    const Config *config;
    const Comm *comm;
    const char *run_dir;
    const char *tokenizer_sha256;  // "" if unknown
    Metrics *metrics;              // only rank 0's writes
    TrainerEvaluation *evaluation; // NULL: none
    const HeldModel *teacher;      // NULL: train.loss needs none
} TrainerContext;

typedef struct Trainer {
    TrainerContext context;
    const Config *config; // borrowed, as in the context
    const Comm *comm;     // borrowed, likewise
    Replica *replica;     // borrowed; trained in place
    Model *model;         // the replica's
    Partition partition;  // of what is trained
    Partition frozen;     // of the rest
    BatchSchedule schedule;
    TrainerMemory memory;
    Params grads;
    Mixture *mixture;
    Feed feed;          // reads the mixture while loop_run() is at work
    const Batch *batch; // borrowed from the feed: the micro-batch at hand
    Validation validation;
    json_t *data_fingerprint; // owned
    Saver saver;
    RunState progress;
    Phases phases;
    GradientReducer reducer;
    Status read_status;      // of this rank's micro-batches; agreed on at the end of a round
    bool is_ending;          // some rank wants to end the run; the same on all ranks
    Status metrics_status;   // of rank 0's metrics; agreed on when the ranks next agree
    char metrics_text[1024]; // its error text
} Trainer;

// Places memory and opens the data. Training starts with the replica's parameters as they are, or,
// with a checkpoint, from its step: then parameters and moments are read here. BAD_INPUT if data or
// checkpoint do not fit the config. Collective; released by trainer_release() only if it succeeds.
Status trainer_start(Trainer *out, const TrainerContext *context, Replica *replica,
                     const Checkpoint *resumed);

void trainer_release(Trainer *trainer);

// Tokens of a global batch.
int64_t trainer_step_tokens(const Trainer *trainer);

#endif
