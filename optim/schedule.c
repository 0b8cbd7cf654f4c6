#include "optim/schedule.h"

#include <math.h>

double schedule_lr(const Schedule *schedule, int step)
{
    // With warmup_steps 0 the first step has the full rate: no division by zero, since step >= 1.
    if (step <= schedule->warmup_steps)
        return schedule->lr * step / schedule->warmup_steps;
    if (schedule->decay_steps == 0 || step < schedule->decay_start)
        return schedule->lr;
    int decayed = step - schedule->decay_start;
    if (decayed >= schedule->decay_steps)
        return schedule->min_lr;
    return schedule->min_lr + (schedule->lr - schedule->min_lr) *
                                  (1.0 - sqrt((double)decayed / schedule->decay_steps));
}
