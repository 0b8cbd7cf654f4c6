// Rows with several targets (texts that part after a shared beginning) have their logits computed
// once.
#include "eval/tasks/target_scores.h"

#include "base/intmath.h"
#include "model/kernels/head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// A block's logits stay in the last cache; a block is wide enough to reuse the head's weights.
enum { LOGIT_BYTES = 24 << 20, MIN_ROWS = 32, MAX_ROWS = 256 };

static int block_rows(int V)
{
    const int rows = (int)(LOGIT_BYTES / (V * (int64_t)sizeof(float)));
    return rows < MIN_ROWS ? MIN_ROWS : min_int(rows, MAX_ROWS);
}

int64_t target_scores_bytes(const ModelShape *s)
{
    return (int64_t)sizeof(float) * block_rows(s->vocab_size) * (s->d_model + s->vocab_size);
}

Status target_scores_start(TargetScores *out, const ModelShape *s)
{
    TargetScores scores = {
        .D = s->d_model, .V = s->vocab_size, .max_rows = block_rows(s->vocab_size)};
    const size_t rows = (size_t)scores.max_rows;
    scores.hidden = malloc(rows * (size_t)scores.D * sizeof *scores.hidden);
    scores.logits = malloc(rows * (size_t)scores.V * sizeof *scores.logits);
    if (scores.hidden == NULL || scores.logits == NULL) {
        target_scores_release(&scores);
        return fail(FAILED, "no memory for the logits of %d tokens", scores.max_rows);
    }
    *out = scores;
    return OK;
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
    int64_t first_of_row[MAX_ROWS + 1]; // targets of row i: [first_of_row[i], first_of_row[i + 1])
} ScoreBlock;

static void find_block(ScoreBlock *block, const TargetScores *scores, int64_t first)
{
    int64_t i = first;
    block->first = first;
    block->n_rows = 0;
    for (; i < scores->n_targets; i++) {
        if (i > first && scores->targets[i].row == scores->targets[i - 1].row)
            continue;
        if (block->n_rows == scores->max_rows)
            break;
        block->first_of_row[block->n_rows++] = i;
    }
    block->end = block->first_of_row[block->n_rows] = i;
}

// The targets' logits are read before exp() overwrites them; `row` is no longer needed then.
static void score_row(TargetScores *scores, float *z, double *values, int64_t first, int64_t end)
{
    for (int64_t i = first; i < end; i++)
        values[i - first] = z[scores->targets[i].id];
    const double log_sum = head_log_sum_exp(z, scores->V);
    for (int64_t i = first; i < end; i++)
        values[i - first] -= log_sum;
}

static Status score_block(TargetScores *scores, const ScoreBlock *block, Infer *infer)
{
    double *values = malloc((size_t)(block->end - block->first) * sizeof *values);
    bool is_finite = true;
    if (values == NULL)
        return fail(FAILED, "no memory to score %lld tokens",
                    (long long)(block->end - block->first));
    for (int i = 0; i < block->n_rows; i++)
        memcpy(scores->hidden + (int64_t)i * scores->D,
               infer_hidden(infer, scores->targets[block->first_of_row[i]].row),
               (size_t)scores->D * sizeof(float));
    infer_logits(infer, scores->logits, scores->hidden, block->n_rows);
#pragma omp parallel for schedule(static)
    for (int i = 0; i < block->n_rows; i++)
        score_row(scores, scores->logits + (int64_t)i * scores->V,
                  values + (block->first_of_row[i] - block->first), block->first_of_row[i],
                  block->first_of_row[i + 1]);
    // In the order of the targets, whichever thread computed which.
    for (int64_t i = block->first; i < block->end; i++) {
        *scores->targets[i].sum += values[i - block->first];
        is_finite = is_finite && isfinite(values[i - block->first]);
    }
    free(values);
    scores->n_rows += block->n_rows;
    return is_finite ? OK
                     : fail(FAILED, "the model's logits are not finite numbers: its weights may be "
                                    "damaged, or too large for the cache's type");
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
