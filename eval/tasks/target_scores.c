// Rows with several targets (texts that part after a shared beginning) have their logits computed
// once.
#include "eval/tasks/target_scores.h"

#include "base/intmath.h"
#include "model/kernels/head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

Status target_scores_start(TargetScores *out, const ModelShape *s)
{
    TargetScores scores = {.D = s->d_model, .V = s->vocab_size};
    scores.hidden = malloc(SCORE_ROWS * (size_t)scores.D * sizeof *scores.hidden);
    scores.logits = malloc((size_t)SCORE_ROWS * SCORE_PART * sizeof *scores.logits);
    if (scores.hidden == NULL || scores.logits == NULL) {
        target_scores_release(&scores);
        return fail(FAILED, "no memory for the logits of %d tokens", SCORE_ROWS);
    }
    *out = scores;
    return OK;
}

int64_t target_scores_bytes(const ModelShape *shape)
{
    return (int64_t)SCORE_ROWS * (shape->d_model + SCORE_PART) * (int64_t)sizeof(float);
}

void target_scores_release(TargetScores *scores)
{
    free(scores->hidden);
    free(scores->logits);
    free(scores->targets);
    *scores = (TargetScores){0};
}

void target_scores_clear(TargetScores *scores)
{
    scores->n_targets = 0;
}

Status target_scores_add(TargetScores *scores, int row, int32_t id, double *sum)
{
    CHECK(id >= 0 && id < scores->V, "token %d of %d", id, scores->V);
    CHECK(scores->n_targets == 0 || scores->targets[scores->n_targets - 1].row <= row,
          "row %d after row %d", row, scores->targets[scores->n_targets - 1].row);
    if (scores->n_targets == scores->max_targets) {
        const int64_t room = scores->max_targets * 2 + 64;
        ScoreTarget *targets = realloc(scores->targets, (size_t)room * sizeof *targets);
        if (targets == NULL)
            return fail(FAILED, "no memory for %lld scored tokens", (long long)room);
        scores->targets = targets;
        scores->max_targets = room;
    }
    scores->targets[scores->n_targets++] = (ScoreTarget){row, id, sum};
    return OK;
}

// The targets from `first` on whose rows make a block, and the block's rows.
typedef struct ScoreBlock {
    int64_t first, end;
    int n_rows;
    int64_t
        first_of_row[SCORE_ROWS + 1]; // targets of row i: [first_of_row[i], first_of_row[i + 1])
    HeadSum sums[SCORE_ROWS];
} ScoreBlock;

static void find_block(ScoreBlock *block, const TargetScores *scores, int64_t first)
{
    int64_t i = first;
    block->first = first;
    block->n_rows = 0;
    for (; i < scores->n_targets; i++) {
        if (i > first && scores->targets[i].row == scores->targets[i - 1].row)
            continue;
        if (block->n_rows == SCORE_ROWS)
            break;
        block->first_of_row[block->n_rows++] = i;
    }
    block->end = block->first_of_row[block->n_rows] = i;
}

// A row of logits of the tokens [first, first + count): those of targets go to `values`, before
// exp() overwrites them.
static void score_row(const TargetScores *scores, ScoreBlock *block, int row, double *values,
                      int first, int count)
{
    float *z = scores->logits + (int64_t)row * count;
    for (int64_t i = block->first_of_row[row]; i < block->first_of_row[row + 1]; i++) {
        const int32_t id = scores->targets[i].id;
        if (id >= first && id < first + count)
            values[i - block->first] = (double)z[id - first];
    }
    head_sum_add(&block->sums[row], z, count);
}

// values [end - first] = the targets' logits.
static void score_parts(TargetScores *scores, ScoreBlock *block, double *values, Infer *infer)
{
    for (int i = 0; i < block->n_rows; i++) {
        block->sums[i] = HEAD_SUM_EMPTY;
        memcpy(scores->hidden + (int64_t)i * scores->D,
               infer_hidden(infer, scores->targets[block->first_of_row[i]].row),
               (size_t)scores->D * sizeof(float));
    }
    for (int first = 0; first < scores->V; first += SCORE_PART) {
        const int count = min_int(SCORE_PART, scores->V - first);
        infer_logits_part(infer, scores->logits, scores->hidden, block->n_rows, first, count);
#pragma omp parallel for schedule(static)
        for (int i = 0; i < block->n_rows; i++)
            score_row(scores, block, i, values, first, count);
    }
}

// In the order of the targets, whichever thread computed which.
static Status add_up(TargetScores *scores, const ScoreBlock *block, const double *values)
{
    bool is_finite = true;
    for (int row = 0; row < block->n_rows; row++) {
        const double log_sum = head_sum_log(&block->sums[row]);
        for (int64_t i = block->first_of_row[row]; i < block->first_of_row[row + 1]; i++) {
            const double value = values[i - block->first] - log_sum;
            *scores->targets[i].sum += value;
            is_finite = is_finite && isfinite(value);
        }
    }
    return is_finite ? OK
                     : fail(FAILED, "the model's logits are not finite numbers: its weights may be "
                                    "damaged, or too large for the cache's type");
}

static Status score_block(TargetScores *scores, ScoreBlock *block, Infer *infer)
{
    double *values = malloc((size_t)(block->end - block->first) * sizeof *values);
    if (values == NULL)
        return fail(FAILED, "no memory to score %lld tokens",
                    (long long)(block->end - block->first));
    score_parts(scores, block, values, infer);
    const Status status = add_up(scores, block, values);
    free(values);
    scores->n_rows += block->n_rows;
    return status;
}

Status target_scores_finish(TargetScores *scores, Infer *infer)
{
    ScoreBlock block = {0};
    while (block.end < scores->n_targets) {
        find_block(&block, scores, block.end);
        TRY(score_block(scores, &block, infer));
    }
    return OK;
}
