// What bench_step measures, and its output: medians over the rounds as a table of the step's
// parts, or as one row of the table that bench_all.sh makes.
//
//     StepRound rounds[3];                          // filled by each rank, averaged over ranks
//     step_table_print(&setting, rounds);
//     step_table_write_row(file, &setting, rounds);
//
// FLOP are counted once, with the causal half of attention; recomputing, masked halves of tiles and
// everything that is no product are time without FLOP.
#ifndef MHA2MLA_BENCH_STEP_TABLE_H
#define MHA2MLA_BENCH_STEP_TABLE_H

#include "model/kernels/compute.h"
#include "model/kernels/step_times.h"
#include "model/shape.h"

#include <stdio.h>

// What a step does beside forward and backward.
typedef enum StepStage {
    STAGE_REDUCE, // gradients to the ranks that own their shares
    STAGE_CLIP,   // squares of the shares, their sum over ranks
    STAGE_ADAMW,
    STAGE_GATHER, // updated shares to all ranks
    N_STAGES
} StepStage;

// Seconds of one round. Only doubles, which are averaged over ranks one by one.
typedef struct StepRound {
    double parts_s[N_STEP_PARTS][2]; // by StepDirection
    double stages_s[N_STAGES];
    double forward_s; // forward and loss without gradients, beside the step
    double passes_s;  // forward, loss and backward of the step
    double waits_s;   // for slower ranks
    double step_s;    // passes, stages and waits
    double sgemm_s;   // of one product
    double bf16_s;    // of one product in bfloat16; 0: not measured
} StepRound;

typedef struct StepSetting {
    const char *shape_name; // borrowed
    ModelShape shape;
    ComputeType compute; // of the step's products
    int T;               // of each rank
    int n_ranks, n_threads, n_rounds;
    bool is_cpu_time;
    int sgemm_size;
    double peak_bytes, peak_sum_bytes; // resident: of the largest rank, of all
    double core_share; // CPU time per second and thread; below 1: others had the cores, or threads
                       // slept in serial parts
} StepSetting;

enum { STEP_MAX_ROUNDS = 99 };

// "mha", "mla" or "shared".
const char *step_attention_name(const ModelShape *shape);

void step_table_print(const StepSetting *setting, const StepRound *rounds); // [n_rounds]

void step_table_write_row(FILE *file, const StepSetting *setting,
                          const StepRound *rounds); // [n_rounds]

#endif
