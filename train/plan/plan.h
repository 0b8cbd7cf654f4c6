// What a run needs: its model before and after conversion, the tokens it sees, and the memory of
// each rank by arena. The arenas are measured by the code that places them in training, without
// memory behind it, so that the plan cannot drift from the run. Printed by `plan`, by `train
// --dry-run` and at the start of a run.
//
//     Plan plan;
//     TRY(plan_make(&plan, &config, 64, 1));
//     plan_print(stdout, &plan, &config);
//
// Not collective.
#ifndef MHA2MLA_TRAIN_PLAN_PLAN_H
#define MHA2MLA_TRAIN_PLAN_PLAN_H

#include "train/config/config.h"

#include <stdio.h>

typedef struct Plan {
    ModelShape original, shape; // equal for a baseline
    ModelShape teaching;        // of the teacher, if has_teacher
    bool has_teacher;
    int n_ranks, n_threads;
    int n_sharers; // ranks that share one copy of the parameters; plan_make() sets 1
    // Bytes of each arena while training, on the rank that has the most. `parameters` is the whole
    // copy, however many ranks share it.
    int64_t parameters, gradients, moments, activations, scratch;
    int64_t evaluation;            // of eval.tasks beside training: evaluation_bytes()
    int64_t teacher, teacher_pass; // weights, whoever shares them; what a rank has besides
    int64_t communication;         // buffers of the largest bucket's shares, and small sums
    // Bytes while converting. First the original model and the buffers of forward passes with it
    // (calibration, validation), 0 if there are none; later, beside the converted model, the
    // workspace of one layer's conversion.
    int64_t original_model, original_pass, conversion;
    int64_t refit;    // of output projections, beside both models; 0: the method has none
    int64_t distill;  // of local distillation, likewise; 0: there is none
    int64_t products; // packed operands of matrix products, the program's or OpenBLAS's
    int64_t shards;   // HDF5's caches of open files: token shards, the checkpoint being written
    int64_t process;  // resident before any arena is allocated: program, libraries, MPI
} Plan;

// Measures without allocating the arenas. The first plan of a process warms up the libraries, so
// that their memory is counted: some tens of milliseconds. BAD_INPUT if the base model or the
// conversion is not valid, or the batch does not fit the ranks or is too large to count.
Status plan_make(Plan *out, const Config *config, int n_ranks, int n_threads);

// The same where the shape before conversion is known, so that model.base is not read; NULL: it is
// read.
Status plan_make_of(Plan *out, const ModelShape *original, const Config *config, int n_ranks,
                    int n_threads);

// The number of ranks that share one copy of the parameters, with ranks_per_host ranks on each
// host: train.ranks_per_copy of them, or 1 where the hosts cannot be divided so
// (train/parallel/comm_shared.h).
int plan_sharers(const Config *config, int n_ranks, int ranks_per_host);

// Peak memory of a rank: the larger of training and converting, as the memory of one is released
// before that of the other is allocated. A shared copy counts by this rank's part of it.
int64_t plan_peak_bytes(const Plan *plan);

// Floating-point operations of forward and backward of one sequence: of all that a step computes.
double plan_sequence_flops(const Plan *plan, const Config *config);

void plan_print(FILE *out, const Plan *plan, const Config *config);

// Resident memory of this process: now, and its peak so far.
int64_t plan_resident_bytes(void);
int64_t plan_peak_resident_bytes(void);

// Forgets the peak where the system allows it, and returns what it counts from now on: peaks up to
// this one are not known to be later.
int64_t plan_restart_peak(void);

#endif
