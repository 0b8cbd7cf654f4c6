// What a step sums over ranks once, after its gradients: one vector of doubles in which every rank
// fills the places that belong to it and leaves the others 0. Each number is added to zeros alone,
// so no sum over ranks rounds, and what is computed from the vector has the same bits for any
// number of ranks.
//
//     StepSums sums;
//     step_sums_place(&sums, &arena, &partition, &schedule);   // twice: measure, place
//     step_sums_clear(&sums);
//     sums.losses[m] = ...;
//     step_sums_reduce(&sums, &comm);                          // collective
//     report.grad_norm = step_sums_norm(&sums);
//
//     values  [ squares | losses | kls | matches | data_waits_s | phases_s | n_leaving ]
#ifndef MHA2MLA_TRAIN_STEP_SUMS_H
#define MHA2MLA_TRAIN_STEP_SUMS_H

#include "base/arena.h"
#include "train/config/config.h"
#include "train/metrics/phases.h"
#include "train/parallel/batch_schedule.h"
#include "train/parallel/partition.h"

typedef struct StepSums {
    double *values; // [count], all of the following
    int64_t count;
    double *squares; // [n_squares] of the gradient's blocks, bucket by bucket
    int64_t n_squares;
    double *losses;  // [n_losses] of the micro-batches: cross-entropy summed over their targets,
    double *kls;     // [n_losses] likewise the divergence from the teacher,
    double *matches; // [n_losses] and the attention loss summed over their sequences
    int n_losses;
    double *data_waits_s; // [n_ranks]
    double *phases_s;     // [N_PHASES], which all ranks add to
    double *n_leaving;    // [1], number of ranks that want to end the run
} StepSums;

// The pointers are NULL while measuring.
void step_sums_place(StepSums *out, Arena *arena, const Partition *partition,
                     const BatchSchedule *schedule);

void step_sums_clear(StepSums *sums);

// Collective.
void step_sums_reduce(StepSums *sums, const Comm *comm);

// Norm of the gradient.
double step_sums_norm(const StepSums *sums);

// Means over n_tokens and n_sequences, which are all in the sums, and their sum by the weights.
typedef struct StepLosses {
    double total, ce, kl, attention_mse;
} StepLosses;

StepLosses step_sums_losses(const StepSums *sums, const LossConfig *weights, int64_t n_tokens,
                            int64_t n_sequences);

#endif
