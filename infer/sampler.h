// The choice of the next token from a model's logits. The filters and their order are those of
// transformers' generate(): repetition penalty, temperature, top-k, top-p, min-p.
//
//     const SamplerOptions options = {.temperature = 0.8, .top_p = 0.95, .repetition_penalty = 1,
//                                     .repeat_last_n = SAMPLER_WHOLE_HISTORY};
//     Sampler *sampler;
//     TRY(sampler_create(&sampler, &options, vocab_size));
//     SamplerStream stream = {.key = sampler_key(seed, prompt, sample), .n_drawn = 0};
//     int32_t id = sampler_draw(sampler, &stream, logits, history, n_history);
//     sampler_release(sampler);
//
// A stream of random numbers is a function of seed, prompt and sample alone, so that an answer
// depends neither on the others of its batch nor on the number of ranks. A Sampler is scratch of
// one thread.
#ifndef MHA2MLA_INFER_SAMPLER_H
#define MHA2MLA_INFER_SAMPLER_H

#include "base/status.h"

#include <stdint.h>

enum { SAMPLER_WHOLE_HISTORY = -1 };

typedef struct SamplerOptions {
    double temperature;        // 0: the token with the largest logit, no random number
    int top_k;                 // 0: all; ties with the k-th are kept
    double top_p;              // 1: all; else the most likely tokens up to this probability
    double min_p;              // 0: all; else those at least this likely, relative to the first
    double repetition_penalty; // 1: none. Logits > 0 are divided by it, others multiplied
    int repeat_last_n;         // tokens back that it looks at; SAMPLER_WHOLE_HISTORY: all
} SamplerOptions;

// What sampling is from: the tokens that the filters keep, the most likely first unless all are
// kept.
typedef struct SamplerChoice {
    int32_t id;
    float logit;        // after the penalty
    double probability; // among those kept; they sum to 1
} SamplerChoice;

typedef struct SamplerStream {
    uint64_t key;
    uint64_t n_drawn; // numbers used so far
} SamplerStream;

typedef struct Sampler Sampler;

// BAD_INPUT names an option out of its bounds and the bounds.
Status sampler_check(const SamplerOptions *options);

Status sampler_create(Sampler **out, const SamplerOptions *options, int vocab_size);
void sampler_release(Sampler *sampler); // NULL is fine

// The key of a sample's stream: prompts and samples are counted from 0 over all ranks.
uint64_t sampler_key(uint64_t seed, int64_t prompt, int64_t sample);

// Applies the filters with a temperature above 0: the number of choices, [out] owned by the sampler
// until its next use; 0 if a logit is not a number or none is finite.
int sampler_filter(Sampler *sampler, const SamplerChoice **out,
                   const float *logits,                        // [V]
                   const int32_t *history, int64_t n_history); // prompt and answer so far

// The next token, of several equally likely ones the lowest at temperature 0; -1 if a logit is not
// a number or none is finite.
int32_t sampler_draw(Sampler *sampler, SamplerStream *stream,
                     const float *logits, // [V]
                     const int32_t *history, int64_t n_history);

#endif
