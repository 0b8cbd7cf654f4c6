// Distills one layer: Adam over steps of a few windows, then the output projection refitted to the
// same targets. The ranks of a team share the windows of a step; every rank of it ends with the
// same bits, those that any other number of ranks gets. A team is all ranks of the job, or one
// alone.
//
//     trainer = layer_trainer_make(team, &settings);
//     layer_trainer_place(&trainer, &arena, &shape);       // twice, see base/arena.h
//     ...
//     const LayerData data = {inputs, targets, mean_square};
//     TRY(layer_trainer_run(&trainer, &mla, layer, &data, &meter));
//     TRY(student_store(&trainer.student, parameters));
//
// Collective in the team.
#ifndef MHA2MLA_TRAIN_DISTILL_LAYER_TRAINER_H
#define MHA2MLA_TRAIN_DISTILL_LAYER_TRAINER_H

#include "base/progress.h"
#include "train/distill/distill_order.h"
#include "train/distill/student.h"
#include "train/parallel/comm.h"

typedef struct LayerSettings {
    int steps, n_windows, T;
    double lr; // the highest, for weights of size 1
    uint64_t seed;
    ComputeType compute;
} LayerSettings;

// What a rank holds of a layer's windows: their inputs and what attention is to give for them, each
// [n_own, T, D], the weights of the tokens' squares, and the weighted mean square of the targets of
// all windows.
typedef struct LayerData {
    const float *inputs, *targets; // borrowed
    const float *weights;          // borrowed [n_own, T]
    double mean_square;
} LayerData;

// Parts of the targets' weighted mean square: in the first step, after the last, and with the
// output refitted; the latter two over all windows.
typedef struct LayerLosses {
    double first, trained, fitted;
} LayerLosses;

typedef struct LayerTrainer {
    const Comm *team; // borrowed
    LayerSettings settings;
    WindowShare share;
    uint64_t key; // of the order of the layer's windows
    Student student;
    StudentPart parts[STUDENT_MAX_PARTS];
    int n_parts;
    int64_t own_count;  // of trained floats: this rank's shares of all buckets
    float *sum, *m, *v; // [own_count]
    void *buffer;
    int64_t n_blocks;
    double *sums;           // of a step: [n_blocks] squares, [batch] losses, one for a stop
    double *windows;        // [n_windows] a number of each window, summed in their order
    double *largest;        // [H E + D] absolute values of the columns of heads and targets
    double *heads, *wanted; // [T, H E] and [T, D] of one window, scaled
    double *gram, *moment;  // [H E, H E] and [H E, D]
    double *tiles;
    float *row; // [H E]
    LayerLosses losses;
} LayerTrainer;

LayerTrainer layer_trainer_make(const Comm *team, const LayerSettings *settings);

// Not collective.
void layer_trainer_place(LayerTrainer *trainer, Arena *arena, const ModelShape *mla, int n_threads);

// Trains layer `layer` of the model into trainer->student. FAILED if a gradient is not finite;
// STOPPED if a stop is requested. Shows its steps from *n_shown on.
Status layer_trainer_run(LayerTrainer *trainer, const Model *mla, int layer, const LayerData *data,
                         ProgressMeter *meter, int64_t *n_shown);

// The sum over the team of what each rank has put into trainer->windows for its windows, 0 for the
// others, added in the order of the windows.
double layer_trainer_sum(LayerTrainer *trainer);

#endif
