// A pure function of the step, so a resumed run needs no saved state. The decay is 1 - sqrt rather
// than cosine (Haegele et al., arXiv 2405.18392), as in the code published with MHA2MLA.
#include "optim/schedule.h"

#include <math.h>

double schedule_lr(const Schedule *schedule, int step)
{
    // With warmup_steps 0 the first step has the full rate: no division by zero, since step >= 1.
    if (step <= schedule->warmup_steps)
        return schedule->lr * step / schedule->warmup_steps;
    // The constant part. decay_start may lie before the end of the warm-up; then the warm-up wins.
    if (schedule->decay_steps == 0 || step < schedule->decay_start)
        return schedule->lr;
    int decayed = step - schedule->decay_start;
    if (decayed >= schedule->decay_steps)
        return schedule->min_lr;
    return schedule->min_lr + (schedule->lr - schedule->min_lr) *
                                  (1.0 - sqrt((double)decayed / schedule->decay_steps));
}
