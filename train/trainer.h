// What a rank holds of a run: its share of the work, its memory, data, and where it is.
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
#include "train/memory.h"
#include "train/metrics/metrics.h"
#include "train/metrics/phases.h"
#include "train/parallel/batch_schedule.h"
#include "train/parallel/comm.h"
#include "train/parallel/exchange.h"
#include "train/parallel/partition.h"
#include "train/replica.h"
#include "train/validation.h"

// What the trainer borrows from the run.
typedef struct TrainerContext {
    const Config *config;
    const Comm *comm;
    const char *run_dir;
    const char *tokenizer_sha256; // "": not known
    Metrics *metrics;             // its file is rank 0's alone
} TrainerContext;

typedef struct Trainer {
    TrainerContext context;
    const Config *config; // borrowed, as in the context
    const Comm *comm;     // borrowed, likewise
    Replica *replica;     // borrowed; trained in place
    Model *model;         // theirs
    Partition partition;
    BatchSchedule schedule;
    TrainerMemory memory;
    Params grads;
    Mixture *mixture;
    Prefetch *prefetch; // reads the mixture while loop_run() is at work
    const Batch *batch; // borrowed from it: the micro-batch at hand
    Validation validation;
    json_t *data_fingerprint; // owned
    Saver saver;
    RunState progress;
    Phases phases;
    Exchange *exchange;
    int round;  // of the step at hand
    int n_kept; // buckets, the first ones, whose sums over this round are not asked for yet
    int64_t
        reuse_ticket; // of the last job that reads gradients whose memory is reused; -1: none yet
    bool wants_end;   // a rank, says this step's sums
    Status metrics_status; // what ends the run once the ranks agree on it, and its text
    char metrics_text[1024];
} Trainer;

// Starts at the beginning with `weights` as they are, or, with a checkpoint, where that is: then
// they are read here. BAD_INPUT if the checkpoint's data are not the config's.
Status trainer_start(Trainer *out, const TrainerContext *context, Replica *replica,
                     const Checkpoint *resumed);

void trainer_release(Trainer *trainer);

int64_t trainer_step_tokens(const Trainer *trainer); // of a global batch

#endif
