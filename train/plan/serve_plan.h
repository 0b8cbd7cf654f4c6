// What it takes to serve a model: `mha2mla plan --serve`. One table compares the original attention
// with latents of several widths, each with its cache held in every width of numbers.
//
//     ServePlan plan = {.model = dir, .shape = shape, .load = load, .efficiency = 0.7};
//     TRY(serve_plan_check(&plan));
//     serve_plan_print(stdout, &plan, &rates);
#ifndef MHA2MLA_TRAIN_PLAN_SERVE_PLAN_H
#define MHA2MLA_TRAIN_PLAN_SERVE_PLAN_H

#include "train/plan/serve_cost.h"

#include <stdio.h>

typedef struct ServePlan {
    const char *model; // what the user has named; borrowed
    ModelShape shape;
    ServeLoad load;
    double efficiency; // share of sgemm's rate that products reach
    bool is_memory_given, is_rate_given, is_reading_given; // is_rate_given: of products
    bool is_attention_given;                               // with products in bfloat16
} ServePlan;

// BAD_INPUT if the context is longer than the model was made for; a warning beyond the length that
// it was healed at.
Status serve_plan_check(const ServePlan *plan);

void serve_plan_print(FILE *out, const ServePlan *plan, const Rates *rates);

#endif
