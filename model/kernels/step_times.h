// Where the time of a step goes: at each mark, forward and backward add the time since the last
// mark to the part that has just ended. With NULL instead of the table nothing is measured.
//
//     StepTimes times = {.clock = log_seconds};
//     ws.times = &times;
//     transformer_forward(...), transformer_loss(...), transformer_backward(...);
//     printf("%g s\n", times.seconds[STEP_ATTENTION][STEP_BACKWARD]);
#ifndef MHA2MLA_MODEL_KERNELS_STEP_TIMES_H
#define MHA2MLA_MODEL_KERNELS_STEP_TIMES_H

#include <stddef.h>

typedef enum StepPart {
    STEP_EMBEDDING,
    STEP_NORM,      // RMSNorm and the copy of the residual stream
    STEP_INPUT,     // q | k | v, or q | k_r | down_kv
    STEP_UP,        // up_k | up_v
    STEP_ROPE,      // rotating, and sorting into heads
    STEP_ATTENTION, // scores, softmax, values
    STEP_OUTPUT,    // o
    STEP_FFN,       // gate | up and down
    STEP_SWIGLU,
    STEP_HEAD, // logits and cross-entropy, with their gradients
    N_STEP_PARTS
} StepPart;

typedef enum StepDirection { STEP_FORWARD, STEP_BACKWARD } StepDirection;

typedef struct StepTimes {
    double (*clock)(void); // seconds
    double mark_s;
    StepDirection direction; // of the marks that follow
    double seconds[N_STEP_PARTS][2];
} StepTimes;

static inline void step_times_start(StepTimes *times, StepDirection direction)
{
    if (times == NULL)
        return;
    times->direction = direction;
    times->mark_s = times->clock();
}

static inline void step_times_mark(StepTimes *times, StepPart part)
{
    if (times == NULL)
        return;
    double now_s = times->clock();
    times->seconds[part][times->direction] += now_s - times->mark_s;
    times->mark_s = now_s;
}

#endif
