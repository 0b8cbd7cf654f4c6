// Answers of a model to prompts: every prompt is run once, its samples share its pages of the cache
// and part from there, and up to `batch` answers are decoded together, so that the weights are read
// once per step for all of them. An answer that ends makes room for the next at once.
//
//     GeneratorOptions options = {.sampling = ..., .max_new = 128, .context = 2048, .batch = 8,
//     ...}; Generator *generator; TRY(generator_create(&generator, &model, &options)); status =
//     generator_run(generator, prompts, n_prompts, &events);
//     ... generator_counts(generator) ...
//     generator_release(generator);
//
// The tokens of an answer depend on its prompt, the options, the seed and its numbers (prompt,
// sample), but not on what else is in the batch. Up to WEIGHT_DIRECT_TOKENS answers at a time
// (model/kernels/weights/weight_linear.h) not even the bits of its logits do; where a CPU without
// AMX decodes more, logits differ in rounding.
#ifndef MHA2MLA_INFER_GENERATOR_H
#define MHA2MLA_INFER_GENERATOR_H

#include "data/tokenizer/tokenizer.h"
#include "infer/infer.h"
#include "infer/sampler.h"

// What answers are made with; all borrowed. `infer` is for forwards of max_tokens tokens and at
// least `batch` segments and rows.
typedef struct GeneratorModel {
    Infer *infer;
    KvCache *cache;
    const Tokenizer *tokenizer;
    int vocab_size; // V
    int max_tokens;
} GeneratorModel;

typedef struct GeneratorOptions {
    SamplerOptions sampling;
    uint64_t seed;
    int64_t max_new;        // tokens of an answer at most; -1: up to the context
    int64_t context;        // tokens of prompt and answer at most
    int batch;              // answers that are decoded together at most
    const int32_t *end_ids; // borrowed [n_end_ids]: tokens that end an answer
    int n_end_ids;
    const char *const *stops; // borrowed [n_stops]: texts that end one (infer/stop_text.h)
    int n_stops;
    bool (*is_stopped)(void); // asked between steps: then answers end as they are; may be NULL
} GeneratorOptions;

typedef struct GeneratorPrompt {
    int64_t index;      // among all prompts of all ranks: names the stream of random numbers
    const int32_t *ids; // borrowed [n_ids], 1 to context - 1 of them
    int64_t n_ids;
    int first_sample, n_samples; // numbers of the answers to it
    int64_t max_new;             // tokens of them at most; 0: as in the options
} GeneratorPrompt;

typedef enum AnswerEnd {
    ANSWER_END_TOKEN,   // one of end_ids, which is the last of its ids and not in its text
    ANSWER_STOP,        // a stop string, which is not in its text
    ANSWER_LENGTH,      // max_new, the prompt's or the options'
    ANSWER_CONTEXT,     // the context is full
    ANSWER_INTERRUPTED, // is_stopped()
} AnswerEnd;

typedef struct Answer {
    const GeneratorPrompt *prompt; // borrowed
    int sample;
    AnswerEnd end;
    int stop;           // ANSWER_STOP: the index in stops
    const int32_t *ids; // borrowed [n_ids], without the prompt's
    int64_t n_ids;
} Answer;

// What happens, in the order in which it does: answers to different prompts overlap. An error ends
// the run.
typedef struct GeneratorEvents {
    void *context; // borrowed; the first argument of both
    // Text [size] of an answer, whole characters.
    Status (*on_text)(void *context, const GeneratorPrompt *prompt, int sample, const char *text,
                      int64_t size);
    Status (*on_end)(void *context, const Answer *answer);
} GeneratorEvents;

typedef struct GeneratorCounts {
    int64_t n_answers;
    int64_t prompt_tokens; // each prompt once
    int64_t new_tokens;
    int64_t n_decoded;         // of new_tokens, those after the first of their answer
    double prompt_s, decode_s; // seconds of running prompts, and of all steps after them
    int64_t peak_tokens;       // most tokens in the cache at the same time, shared ones once
} GeneratorCounts;

typedef struct Generator Generator;

// BAD_INPUT names an option out of its bounds. FAILED if memory is short.
Status generator_create(Generator **out, const GeneratorModel *model,
                        const GeneratorOptions *options);
void generator_release(Generator *generator); // NULL is allowed

// Answers all prompts [n_prompts]. FAILED if the cache's limit is exceeded, or a logit is not a
// number. STOPPED if is_stopped() ended it: the answers that had begun are ANSWER_INTERRUPTED.
Status generator_run(Generator *generator, const GeneratorPrompt *prompts, int64_t n_prompts,
                     const GeneratorEvents *events);

GeneratorCounts generator_counts(const Generator *generator);

#endif
