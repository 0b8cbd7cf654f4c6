// The line of a step for people: what the training is doing and how long it will take, as much of
// it as fits. What tells least goes first: the wait for data, learning rate, share of sgemm, norm.
//
//     step 1200/18000  loss 2.3456  valid 2.4567@1000  norm 0.31  lr 1.0e-4  12345 tok/s
//     71% sgemm  data 0.1%  2 skipped  eta 5:12:03                      (one line; 0 skipped: none)
//
// valid: the last validation loss and its step. sgemm: FLOP of the model per second, of what square
// matrix products reached on all ranks when the run started. eta: the time left.
#ifndef MHA2MLA_TRAIN_METRICS_STEP_LINE_H
#define MHA2MLA_TRAIN_METRICS_STEP_LINE_H

#include "train/metrics/metrics.h"

typedef struct StepLine {
    const StepReport *report; // borrowed
    int n_steps;
    double tokens_per_s;
    double sgemm_share; // NaN: not known
    double left_s;
} StepLine;

// At most `columns` and out_bytes - 1 characters; the step itself always stays.
void step_line_write(char *out, size_t out_bytes, const StepLine *line, int columns);

#endif
