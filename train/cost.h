// The time of a run, from its plan and what the machine does per second. A model, not a simulation:
//
//   products  the model's FLOP, of the rank with the most micro-batches, at a share (`efficiency`)
//             of the rate of sgemm; 0.65 to 0.8 is what bench/bench_step sees for SmolLM's shapes
//   memory    gradients cleared and added up, squares for clipping, AdamW: bytes at the triad's
//   rate messages  per round of micro-batches a reduce-scatter, per step an all-gather of all
//   parameters
//             in float32: (N - 1) / N of 4 bytes each to and from every rank, in buckets of a layer
//             of at most 16 MiB, N - 1 messages per bucket. Nothing of it overlaps with products.
//
// What validation and calibration read counts as products of a forward alone. Loading, conversion,
// checkpoints and the export are not counted.
#ifndef MHA2MLA_TRAIN_COST_H
#define MHA2MLA_TRAIN_COST_H

#include "train/plan.h"
#include "train/rates.h"

typedef struct Cost {
    double step_flops;                        // of all ranks
    double products_s, memory_s, messages_s;  // of a step
    double step_s;                            // their sum
    double steps_s, validation_s, original_s; // of the run; original: passes before conversion
    double run_s;                             // their sum
} Cost;

// FAILED if memory is short.
Status cost_make(Cost *out, const Plan *plan, const Config *config, const Rates *rates,
                 double efficiency);

#endif
