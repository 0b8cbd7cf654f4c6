// Log-likelihoods of chosen tokens at chosen rows of a forward: only those rows' logits are
// computed, for a block of rows and a part of the vocabulary at a time.
//
//     TargetScores scores;
//     TRY(target_scores_start(&scores, &weights->shape));
//     target_scores_clear(&scores);
//     TRY(target_scores_add(&scores, row, id, &sum)); // rows in ascending order
//     TRY(target_scores_finish(&scores, infer));      // sum += log softmax(logits[row])[id]
//     target_scores_release(&scores);
//
// Private to eval/tasks.
#ifndef MHA2MLA_EVAL_TASKS_TARGET_SCORES_H
#define MHA2MLA_EVAL_TASKS_TARGET_SCORES_H

#include "infer/infer.h"

// Of a block: what its logits take stays in the second cache, in whose lines 16 rows do not compete
// for a few sets, as they would 4096 numbers apart.
enum { SCORE_ROWS = 128, SCORE_PART = 4064 };

typedef struct ScoreTarget {
    int row;
    int32_t id;
    double *sum; // borrowed
} ScoreTarget;

typedef struct TargetScores {
    int D, V;
    float *hidden;        // owned [SCORE_ROWS, D]
    float *logits;        // owned [SCORE_ROWS, SCORE_PART]
    ScoreTarget *targets; // owned [n_targets], room for max_targets
    int64_t n_targets, max_targets;
    int64_t n_rows; // whose logits were computed, over all forwards
} TargetScores;

// FAILED if memory is short.
Status target_scores_start(TargetScores *out, const ModelShape *shape);
void target_scores_release(TargetScores *scores); // a zeroed one is allowed

// What target_scores_start() takes.
int64_t target_scores_bytes(const ModelShape *shape);

// A token at a row of the next forward that target_scores_finish() reads. Rows ascend.
Status target_scores_add(TargetScores *scores, int row, int32_t id, double *sum);

void target_scores_clear(TargetScores *scores); // forgets all targets

// Adds to all sums, in the order in which their targets were added. FAILED if a logit is not a
// number.
Status target_scores_finish(TargetScores *scores, Infer *infer);

#endif
