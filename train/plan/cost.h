// The time of a run, from its plan and what the machine does per second. A model, not a simulation:
//
//   products  the model's FLOP, of the rank with the most micro-batches, at a share (`efficiency`)
//             of the rate of sgemm; 0.65 to 0.8 is what bench/bench_step sees for SmolLM's shapes
//   memory    gradients added up, squares for clipping, AdamW: bytes at the triad's rate
//   messages  per round of micro-batches a reduce-scatter of all gradients (float32, or bfloat16 if
//             they are sent so), per step an all-gather of all parameters (float32): (N - 1) / N of
//             them to and from every rank, in buckets of a layer of at most 16 MiB, N - 1 messages
//             per bucket; where ranks share parameters the all-gather is between the C copies:
//             (C - 1) / N, and C - 1 messages
//   exposed   what of the messages is waited for. Without train.overlap all. With it sums go behind
//             the backward of the round's last micro-batch, but for the embedding's, and all that
//             is left of a round behind the first forward of the next; parameters go behind a
//             micro-batch's forward, but for the embedding.
//
// What validation and calibration read counts as products of a forward alone. Loading, conversion,
// checkpoints and the export are not counted.
#ifndef MHA2MLA_TRAIN_PLAN_COST_H
#define MHA2MLA_TRAIN_PLAN_COST_H

#include "train/plan/plan.h"
#include "train/plan/rates.h"

typedef struct Cost {
    double step_flops;                        // of all ranks
    double products_s, memory_s;              // of a step
    double messages_s, exposed_s;             // of a step: on their way; waited for
    double step_s;                            // products, memory, exposed
    double steps_s, validation_s, original_s; // of the run; original: passes before conversion
    double run_s;                             // their sum
} Cost;

// The share of sgemm's rate with which products and memory take as long as was measured on the
// plan's ranks. BAD_INPUT if the memory alone would take longer; FAILED if memory is short.
Status cost_efficiency(double *out, const Plan *plan, const Config *config, const Rates *rates,
                       double compute_s);

// FAILED if memory is short.
Status cost_make(Cost *out, const Plan *plan, const Config *config, const Rates *rates,
                 double efficiency);

#endif
