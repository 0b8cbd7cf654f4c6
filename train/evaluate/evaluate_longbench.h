// LongBench and needle sets over the ranks of a job: greedy answers to long prompts, and their
// scores.
//
//     LongbenchEvaluation evaluation = {0};
//     const LongbenchRequest request = {.dir = "LongBench", .batch = 8};
//     TRY_GOTO(release, evaluate_longbench_open(&evaluation, comm, &request, &model));
//     if (evaluation.n_missing > 0) {
//         TRY_GOTO(release, infer_weights_load(&weights, "runs/demo/model"));
//         TRY_GOTO(release, evaluate_longbench_run(&evaluation, comm, &weights, &model));
//     }
//     TRY_GOTO(release, evaluate_longbench_score(&evaluation, comm));
//     ... evaluation.scores[f], on rank 0 ...
// release:
//     evaluate_longbench_release(&evaluation);
//
// The ranks share the prompts. An answer has the same tokens on any number of ranks and in any
// batch: no row of a product depends on the others (model/kernels/weights/weight_linear.h). It ends
// with a token that ends texts or at its set's length; special tokens are no part of it.
//
// Predictions may be kept in a file (train/evaluate/longbench_predictions.h), from which an
// evaluation goes on: prompts that it has answers to are not run again, but scored. Memory: the
// prompts' ids and, while running, a cache of `batch` sequences of T tokens.
#ifndef MHA2MLA_TRAIN_EVALUATE_EVALUATE_LONGBENCH_H
#define MHA2MLA_TRAIN_EVALUATE_EVALUATE_LONGBENCH_H

#include "eval/longbench/longbench_items.h"
#include "infer/cache/kv_format.h"
#include "infer/weights.h"
#include "train/evaluate/longbench_predictions.h"
#include "train/generate/generate_ranks.h"
#include "train/parallel/comm.h"

// Answers decoded together at most: of more than this many rows the products' bits may depend on
// one another.
enum { EVALUATE_LONGBENCH_MAX_BATCH = WEIGHT_DIRECT_TOKENS };

// What to evaluate. Texts are borrowed.
typedef struct LongbenchRequest {
    const char *dir;         // of the sets' files (eval/longbench/longbench_files.h)
    const char *only;        // "qasper,trec"; NULL: all that are there
    int64_t limit;           // rows of a set at most; 0: all
    int64_t max_length;      // T; 0: evaluate_longbench_max_length()
    int batch;               // answers that a rank decodes together at most
    const char *predictions; // the file; NULL: none
} LongbenchRequest;

// Whose answers. All is borrowed.
typedef struct LongbenchModel {
    const char *dir;
    const ModelShape *shape;
    const Tokenizer *tokenizer;
    const KvFormat *format;
    ComputeType compute;    // of products
    bool is_rotated;        // the latent, in the weights
    const int32_t *end_ids; // [n_end_ids]: each ends an answer
    int n_end_ids;
} LongbenchModel;

typedef struct LongbenchScore {
    int64_t n, n_cut;
    double score, standard_error; // shares of 1; the error of a single row is NaN
    double levenshtein;           // see longbench_score_item()
} LongbenchScore;

typedef struct LongbenchEvaluation {
    int64_t max_length, limit;
    int batch, max_tokens;  // answers, and tokens of a forward, at a time
    bool puts_begin;        // the tokenizer puts a token before every text
    LongbenchFiles files;   // owned
    LongbenchItems *sets;   // owned [files.n]
    LongbenchScore *scores; // owned [files.n]
    int64_t n_items, n_cut;
    Predictions predictions;        // rank 0
    struct LongbenchPlace *missing; // owned [n_missing]
    int64_t n_missing, n_done;      // rows without an answer at the start; answered since
    GenerateTotals totals;          // of evaluate_longbench_run()
} LongbenchEvaluation;

// The length that a converted model was healed at, else its positions: 2048 for SmolLM and 4096 for
// Llama-2, as the reference has them.
int64_t evaluate_longbench_max_length(const ModelShape *shape);

// Reads and tokenizes on every rank; rank 0 opens the predictions. BAD_INPUT as
// longbench_find_files(), longbench_read_items(), predictions_open(); for prompts that differ
// between ranks or from those of the predictions, and a T that the model or a set does not allow.
// Collective.
Status evaluate_longbench_open(LongbenchEvaluation *out, const Comm *comm,
                               const LongbenchRequest *request, const LongbenchModel *model);

// BAD_INPUT with the numbers if weights of this type and the cache exceed the machine's memory. Not
// collective.
Status evaluate_longbench_check_memory(const LongbenchEvaluation *evaluation,
                                       const LongbenchModel *model, DType dtype);

// Answers the missing rows. STOPPED after a request to stop; those that were complete are kept.
// Collective.
Status evaluate_longbench_run(LongbenchEvaluation *evaluation, const Comm *comm,
                              const InferWeights *weights, const LongbenchModel *model);

// Scores of all sets, on rank 0, whose file of predictions gets its final order. Collective.
Status evaluate_longbench_score(LongbenchEvaluation *evaluation, const Comm *comm);

void evaluate_longbench_release(LongbenchEvaluation *evaluation); // a zeroed one is allowed

// The mean over the 16 sets of LongBench; false if one was not evaluated.
bool evaluate_longbench_average(double *out, const LongbenchEvaluation *evaluation);

#endif
