// What a run will be: its model before and after, the tokens it sees, and the memory of each rank
// by arena, from the placing code itself. Printed by `train --dry-run` and at a run's start.
#ifndef MHA2MLA_TRAIN_PLAN_H
#define MHA2MLA_TRAIN_PLAN_H

#include "train/config.h"

#include <stdio.h>

typedef struct Plan {
    ModelShape original, shape; // equal for a baseline
    int n_ranks, n_threads;
    // Bytes of each arena of the fullest rank while training.
    int64_t parameters, gradients, moments, activations, scratch;
    // Bytes while converting: the original model, the converted one, the calibration pass.
    int64_t original_model, calibration;
    int64_t process; // resident before any arena: program, libraries, MPI
} Plan;

// Measures; nothing is allocated. BAD_INPUT if the base model or the conversion is not valid, or
// the batch does not fit the ranks.
Status plan_make(Plan *out, const Config *config, int n_ranks, int n_threads);

int64_t plan_peak_bytes(const Plan *plan);

void plan_print(FILE *out, const Plan *plan, const Config *config);

// Resident memory of this process: now, and the most it ever was.
int64_t plan_resident_bytes(void);
int64_t plan_peak_resident_bytes(void);

#endif
