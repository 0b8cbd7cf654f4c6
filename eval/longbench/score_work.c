#include "eval/longbench/score_work.h"

#include <stdlib.h>

struct ScoreBlock {
    ScoreBlock *older;
    max_align_t data[];
};

void *score_work_take(ScoreWork *work, int64_t count, size_t size_bytes)
{
    const size_t bytes = (size_t)count * size_bytes;
    ScoreBlock *block = calloc(1, sizeof *block + bytes);
    if (block == NULL) {
        fail_write("no memory for %lld bytes to score an answer", (long long)bytes);
        return NULL;
    }
    block->older = work->newest;
    work->newest = block;
    return block->data;
}

Status score_work_spend(ScoreWork *work, int64_t steps)
{
    if (steps > work->steps_left)
        return fail(BAD_INPUT, "the prediction and the reference are too long to be compared");
    work->steps_left -= steps;
    return OK;
}

ScoreMark score_work_mark(const ScoreWork *work)
{
    return work->newest;
}

void score_work_rewind(ScoreWork *work, ScoreMark mark)
{
    while (work->newest != mark) {
        ScoreBlock *block = work->newest;
        work->newest = block->older;
        free(block);
    }
}

void score_work_release(ScoreWork *work)
{
    score_work_rewind(work, NULL);
}
