// Answers over all ranks: each answers its share of the prompts, rank 0 prints all answers in their
// order. With fewer prompts than ranks the samples of each prompt are shared. An answer's tokens
// are the same on any number of ranks.
#ifndef MHA2MLA_TRAIN_GENERATE_GENERATE_RANKS_H
#define MHA2MLA_TRAIN_GENERATE_GENERATE_RANKS_H

#include "infer/generator.h"
#include "train/generate/answers.h"
#include "train/generate/prompts.h"
#include "train/parallel/comm.h"

#include <stdio.h>

// The same on all ranks, but for model.
typedef struct GenerateJob {
    GeneratorModel model; // this rank's
    GeneratorOptions options;
    const PromptList *prompts; // borrowed; encoded
    int n_samples;
    bool as_json;
    FILE *out; // borrowed; where rank 0 prints
    // What rank 0 does with an answer instead of printing it, in the order in which they end, those
    // that are interrupted included; NULL: they are printed.
    Status (*on_answer)(void *context, int64_t prompt, int sample, const AnswerEnding *answer);
    void *context; // borrowed; its first argument
} GenerateJob;

// Sums over all ranks, seconds of the slowest.
typedef struct GenerateTotals {
    int64_t n_answers; // complete ones, without those that were interrupted
    int64_t prompt_tokens, new_tokens, n_decoded, peak_tokens;
    double prompt_s, decode_s;
} GenerateTotals;

// STOPPED after a request to stop (train/stop.h), with what there was printed. Collective.
Status generate_over_ranks(GenerateTotals *out, const Comm *comm, const GenerateJob *job);

#endif
