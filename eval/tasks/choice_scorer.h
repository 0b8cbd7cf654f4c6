// Log-likelihoods of texts under a model: what the choices of a multiple-choice question get. The
// texts of a question share their beginning, which is run once; many questions run in the same
// forward, so that the weights are read once for hundreds of tokens.
//
//     ChoiceScorer *scorer;
//     const KvFormat format = kv_format_plain(KV_FLOAT32);
//     TRY(choice_scorer_create(&scorer, &weights, &format, &(ChoiceScorerOptions){0}));
//     const ScoredText texts[] = {{ids_a, n_a, n_scored_a}, {ids_b, n_b, n_scored_b}};
//     double log_likelihoods[2];
//     ScoredQuestion question = {texts, 2, log_likelihoods};
//     TRY_GOTO(release, choice_scorer_run(scorer, &question, 1));
//     choice_scorer_release(scorer);
//
// A text's number depends on the texts of its question, the weights and the cache's format: neither
// on the other questions and their order nor on the number of threads, up to the last bit. So ranks
// may divide questions as they like.
//
// A text is scored as decoding would score it. In a quantized format its tokens become codes when
// they would, had they come one by one; with the reference policy what comes before the scored ids
// is the prompt, which is quantized at its end.
//
// Memory: the activations of max_tokens tokens, the logits of a block of them, and the cache of the
// questions in work. Not re-entrant. Not collective.
#ifndef MHA2MLA_EVAL_TASKS_CHOICE_SCORER_H
#define MHA2MLA_EVAL_TASKS_CHOICE_SCORER_H

#include "infer/infer.h"

// One text, whose last n_scored ids are scored given all before them: 1 <= n_scored < n_ids. The
// last id is a target and never run, so n_ids - 1 is at most the context.
typedef struct ScoredText {
    const int32_t *ids; // borrowed [n_ids], each < V
    int n_ids, n_scored;
} ScoredText;

// The beginning that all texts share is found by comparing ids; it may end inside of the scored
// ones, or be empty.
typedef struct ScoredQuestion {
    const ScoredText *texts; // borrowed [n_texts], at least one
    int n_texts;
    double *log_likelihoods; // out [n_texts], in nats: sums of log softmax at the scored ids
} ScoredQuestion;

enum { CHOICE_SCORER_TOKENS = 1024 };

typedef struct ChoiceScorerOptions {
    int max_tokens; // of a forward; 0: CHOICE_SCORER_TOKENS. At least 512 are taken.
} ChoiceScorerOptions;

// Over all runs of a scorer.
typedef struct ChoiceScorerCounts {
    int64_t n_forwards;
    int64_t n_tokens;   // run through the layers: a shared beginning once
    int64_t n_logits;   // positions whose logits were computed
    int64_t peak_bytes; // of the cache
} ChoiceScorerCounts;

typedef struct ChoiceScorer ChoiceScorer;

// The weights are borrowed. BAD_INPUT if the format does not fit the model, FAILED if memory is
// short.
Status choice_scorer_create(ChoiceScorer **out, const InferWeights *weights, const KvFormat *format,
                            const ChoiceScorerOptions *options);
void choice_scorer_release(ChoiceScorer *scorer); // NULL is allowed

// What a scorer takes beside the weights: on n_threads, and for its caches at most while texts of
// up to `longest` ids run.
int64_t choice_scorer_work_bytes(const ModelShape *shape, int n_threads);
int64_t choice_scorer_cache_bytes(const ModelShape *shape, const KvFormat *format, int longest);

// Scores all texts of n questions. FAILED if memory for the cache is short, or if a log-likelihood
// is not a number.
Status choice_scorer_run(ChoiceScorer *scorer, ScoredQuestion *questions, int n);

ChoiceScorerCounts choice_scorer_counts(const ChoiceScorer *scorer);

#endif
