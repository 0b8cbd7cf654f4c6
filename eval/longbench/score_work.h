// What one score may take: memory that is given back at once, and a number of steps.
//
//     ScoreWork work = {.steps_left = ANSWER_MAX_STEPS};
//     int32_t *codes = score_work_take(&work, n, sizeof *codes);
//     if (codes == NULL)
//         return FAILED;
//     TRY(score_work_spend(&work, n * n));
//     ...
//     score_work_release(&work);
#ifndef MHA2MLA_EVAL_LONGBENCH_SCORE_WORK_H
#define MHA2MLA_EVAL_LONGBENCH_SCORE_WORK_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct ScoreBlock ScoreBlock;

typedef struct ScoreWork {
    ScoreBlock *newest; // owned, a list
    int64_t steps_left;
} ScoreWork;

typedef ScoreBlock *ScoreMark;

// A zeroed array; NULL with an error text where there is no memory.
void *score_work_take(ScoreWork *work, int64_t count, size_t size_bytes);

// BAD_INPUT once more has been spent than there was.
Status score_work_spend(ScoreWork *work, int64_t steps);

// Gives back what was taken after the mark.
ScoreMark score_work_mark(const ScoreWork *work);
void score_work_rewind(ScoreWork *work, ScoreMark mark);

void score_work_release(ScoreWork *work);

#endif
