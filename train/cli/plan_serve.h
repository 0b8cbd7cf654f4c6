// `mha2mla plan --serve`: what decoding with a model takes, of a Hugging Face directory or of what
// a config will make.
#ifndef MHA2MLA_TRAIN_CLI_PLAN_SERVE_H
#define MHA2MLA_TRAIN_CLI_PLAN_SERVE_H

#include "train/cli/command/command.h"
#include "train/plan/rates.h"

typedef struct PlanServeRequest {
    int64_t context;   // tokens; 0: the model's longest
    int64_t batch;     // sequences
    int64_t n_threads; // of the rank
    double memory_gib; // 0: the machine's
    double efficiency;
    ComputeType compute;
    bool emulate; // products in bfloat16 on any CPU
    Rates rates;  // those that are 0 are measured
} PlanServeRequest;

// line->words[0] is the model or config. Collective; rank 0 prints.
Status plan_serve(const PlanServeRequest *request, const CommandLine *line);

// All of the machine's, as a batch system's share of it is not known here.
double plan_machine_gib(void);

#endif
