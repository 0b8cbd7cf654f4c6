// What a rank holds of a run: its share of the work, its memory, data, and where it is.
//
//     Trainer trainer;
//     TRY(trainer_start(&trainer, &context, &weights, NULL)); // places memory, opens data
//     status = loop_run(&trainer);                           // train/loop.h
//     trainer_release(&trainer);
#ifndef MHA2MLA_TRAIN_TRAINER_H
#define MHA2MLA_TRAIN_TRAINER_H

#include "base/arena.h"
#include "data/batch.h"
#include "data/mixture.h"
#include "data/prefetch.h"
#include "model/transformer.h"
#include "train/comm.h"
#include "train/config.h"
#include "train/exchange.h"
#include "train/metrics.h"
#include "train/partition.h"
#include "train/phases.h"
#include "train/saver.h"
#include "train/turns.h"
#include "train/validation.h"
#include "train/weights.h"

// What a rank holds besides the model, placed twice: to measure and to use.
typedef struct TrainerMemory {
    Arena gradients, moments, activations, scratch, communication;
    float *flat_grads; // [params_count] of a group of micro-batches; ws.overlay says what else
    float *own_sums;   // [partition.own_count] of the step; NULL: in flat_grads, of one round
    float *m, *v;      // [partition.own_count]
    void *buffers;     // [exchange_n_buffers()][buffer_bytes]
    int64_t buffer_bytes;
    double *sums; // [trainer_n_sums()]
    Workspace ws;
    Batch batch; // of validation
    PrefetchMemory ahead;
} TrainerMemory;

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
    Weights *weights;     // borrowed; trained in place
    Model *model;         // theirs
    Partition partition;
    Turns turns;
    TrainerMemory memory;
    Params grads;
    Mixture *mixture;
    Prefetch *prefetch; // reads the mixture while loop_run() is at work
    const Batch *batch; // borrowed from it: the micro-batch at hand
    Validation validation;
    json_t *data_fingerprint; // owned
    Saver saver;
    Progress progress;
    Phases phases;
    Exchange *exchange;
    int round;  // of the step at hand
    int n_kept; // buckets, the first ones, whose sums over this round are not asked for yet
    int64_t lent_ticket; // of the last job that reads gradients where activations lie; -1: none yet
    bool wants_end;      // a rank, says this step's sums
    Status metrics_status; // what ends the run once the ranks agree on it, and its text
    char metrics_text[1024];
} Trainer;

// Places everything with measuring arenas, or with allocated ones.
void trainer_place(TrainerMemory *memory, const ModelShape *shape, const Partition *partition,
                   const Turns *turns, const Config *config, int n_threads);

// Starts at the beginning with `weights` as they are, or, with a checkpoint, where that is: then
// they are read here. BAD_INPUT if the checkpoint's data are not the config's.
Status trainer_start(Trainer *out, const TrainerContext *context, Weights *weights,
                     const Checkpoint *resumed);

void trainer_release(Trainer *trainer);

// What a step sums over ranks: squares of the partition's blocks, losses of the micro-batches,
// waits for data of the ranks, seconds of the phases, ranks that want to end the run.
int64_t trainer_n_sums(const Partition *partition, const Turns *turns);

int64_t trainer_step_tokens(const Trainer *trainer); // of a global batch

#endif
