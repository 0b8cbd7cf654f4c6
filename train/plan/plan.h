// What a run will be: its model before and after, the tokens it sees, and the memory of each rank
// by arena, from the placing code itself. Printed by `train --dry-run` and at a run's start.
#ifndef MHA2MLA_TRAIN_PLAN_PLAN_H
#define MHA2MLA_TRAIN_PLAN_PLAN_H

#include "train/config/config.h"

#include <stdio.h>

typedef struct Plan {
    ModelShape original, shape; // equal for a baseline
    int n_ranks, n_threads;
    int n_sharers; // ranks that share the parameters' memory; as made: 1
    // Bytes of each arena of the fullest rank while training; of the parameters all that share
    // them.
    int64_t parameters, gradients, moments, activations, scratch;
    int64_t communication; // what the ranks exchange: the largest bucket's shares, sums
    // Bytes while converting: if it is asked something, the original model and the passes over data
    // with it (calibration, validation); after those, beside the converted model, a layer's
    // conversion.
    int64_t original_model, original_pass, conversion;
    int64_t products; // what OpenBLAS packs of the largest operand
    int64_t shards;   // what HDF5 keeps of open files: tokens, the checkpoint that is written
    int64_t process;  // resident before any arena: program, libraries at work, MPI
} Plan;

// Measures; nothing is kept. The first plan of a process lets the libraries take the memory that
// they will take anyway, some tens of milliseconds. BAD_INPUT if the base model or the conversion
// is not valid, or the batch does not fit the ranks or is too large to count.
Status plan_make(Plan *out, const Config *config, int n_ranks, int n_threads);

// The same for a model whose shape before conversion is known (NULL: it is not): model.base is not
// read.
Status plan_make_of(Plan *out, const ModelShape *original, const Config *config, int n_ranks,
                    int n_threads);

// The ranks that share parameters, of so many on each host, by the config
// (train/parallel/comm_shared.h).
int plan_sharers(const Config *config, int n_ranks, int ranks_per_host);

// The larger of training and converting: one's memory is given back before the other's is taken.
// What ranks share counts by this one's part.
int64_t plan_peak_bytes(const Plan *plan);

void plan_print(FILE *out, const Plan *plan, const Config *config);

// Resident memory of this process: now, and the most it ever was.
int64_t plan_resident_bytes(void);
int64_t plan_peak_resident_bytes(void);

#endif
