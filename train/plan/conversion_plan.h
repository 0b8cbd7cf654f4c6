// What a conversion takes before training. Memory is measured by the code that places it; time
// follows from the operations of its passes and factorizations, a model as that of cost.h.
//
//     TRY(conversion_plan_memory(&plan, &config));
//     const ConversionWork work = conversion_plan_work(&plan, &config);
#ifndef MHA2MLA_TRAIN_PLAN_CONVERSION_PLAN_H
#define MHA2MLA_TRAIN_PLAN_CONVERSION_PLAN_H

#include "train/plan/plan.h"

// The windows that statistics are collected from: those of the file model.convert.scores if it can
// be read, else of the config.
typedef struct PlannedStatistics {
    int n_pools, n_windows, n_attention, T;
} PlannedStatistics;

PlannedStatistics plan_statistics(const ModelShape *original, const Config *config);

// Fills the plan's bytes while converting, for config.model.convert given. plan->shape and
// plan->parameters are known.
void conversion_plan_memory(Plan *plan, const Config *config);

// Operations of the rank with the most of them. Those in float64 count twice, as they take twice
// the time of float32.
typedef struct ConversionWork {
    double statistics; // collecting them; 0: the config needs none, or has a file
    double layers;     // choice of pairs, factorization, for every stride that is tried, refit
} ConversionWork;

ConversionWork conversion_plan_work(const Plan *plan, const Config *config);

#endif
