// The time of a run, from its plan and the machine's rates. An analytical model, not a simulation:
//
//   products  the FLOP of the rank with the most micro-batches, at `efficiency` times the rate of
//             square products in train.compute; bench/bench_step measures 0.65 to 0.8 of sgemm's
//             for SmolLM's shapes
//   memory    summing gradients, squares for clipping, AdamW, and with products in bfloat16 also
//             norms, RoPE and SwiGLU: their bytes at the triad's rate
//   messages  per round of micro-batches a reduce-scatter of all gradients (float32, or bfloat16 by
//             train.reduce_dtype), per step an all-gather of all parameters (float32, or bfloat16
//             by train.compute). On N ranks each sends and receives (N - 1) / N of them, in buckets
//             of at most a layer and 16 MiB, with N - 1 messages per bucket. Where ranks share
//             parameters, the all-gather is between the C copies: (C - 1) / N of them, C - 1
//             messages per bucket
//   exposed   the part of the messages that is not overlapped with computation. Without
//             train.overlap all of it. With it, the reduce-scatters overlap the backward pass of
//             the round's last micro-batch, except the embedding's, and what is left of a round
//             overlaps the first forward pass of the next; the all-gather overlaps the first
//             forward pass, except the embedding's
//
// Validation and calibration count as the products of forward passes, distillation as the products
// of its steps and passes, statistics and conversion as conversion_plan.h has them, at the rate of
// float32. Loading, checkpoints and the export are not counted.
#ifndef MHA2MLA_TRAIN_PLAN_COST_H
#define MHA2MLA_TRAIN_PLAN_COST_H

#include "train/plan/plan.h"
#include "train/plan/rates.h"

typedef struct Cost {
    double step_flops;                        // per step, over all ranks
    double products_s, memory_s;              // per step
    double messages_s, exposed_s;             // per step: in transit; not overlapped
    double step_s;                            // products, memory, exposed
    double steps_s, validation_s, original_s; // in the run; original: passes before conversion
    double statistics_s, convert_s;           // of activations; from them to the converted model
    double distill_s;                         // local distillation
    double run_s;                             // their sum
} Cost;

// The efficiency at which products and memory take compute_s, a time measured for a step on the
// plan's ranks. BAD_INPUT if the memory alone would take longer; FAILED if memory is short.
Status cost_efficiency(double *out, const Plan *plan, const Config *config, const Rates *rates,
                       double compute_s);

// FAILED if memory is short.
Status cost_make(Cost *out, const Plan *plan, const Config *config, const Rates *rates,
                 double efficiency);

#endif
