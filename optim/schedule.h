// Learning rate over steps: linear warm-up, constant, 1-sqrt decay (the schedule in the code
// published with MHA2MLA, arXiv 2502.14837):
//     s <= W            lr s / W
//     W < s < s0        lr
//     s0 <= s < s0 + D  min + (lr - min) (1 - sqrt((s - s0) / D))
//     s >= s0 + D       min
#ifndef MHA2MLA_OPTIM_SCHEDULE_H
#define MHA2MLA_OPTIM_SCHEDULE_H

typedef struct Schedule {
    double lr, min_lr;
    int warmup_steps; // W; 0: none
    int decay_start;  // s0
    int decay_steps;  // D; 0: no decay
} Schedule;

// The rate of step s; the first step is 1.
double schedule_lr(const Schedule *schedule, int step);

#endif
