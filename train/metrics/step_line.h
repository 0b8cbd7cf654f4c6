// The progress line of a step. Where the terminal is too narrow for all of it, the least telling
// parts are left out first: the wait for data, learning rate, share of sgemm or of
// other products, norm.
//
//     step 1200/18000  loss 2.3456  valid 2.4567@1000  norm 0.31  lr 1.0e-4  12345 tok/s
//     71% sgemm  data 0.1%  2 skipped  eta 5:12:03                                    (one line)
//
// With a teacher "ce 2.31  kl 0.12  mse 0.08", the parts of the loss (train.loss), follow it.
// valid: the newest validation loss and its step. sgemm: the model's floating-point operations per
// second, as a share of what square matrix products reached on all ranks when the run started;
// other products have their name there.
// data: the wait for samples, as a share of the step. skipped: updates skipped so far, if any. eta:
// the time left.
#ifndef MHA2MLA_TRAIN_METRICS_STEP_LINE_H
#define MHA2MLA_TRAIN_METRICS_STEP_LINE_H

#include "train/metrics/metrics.h"

typedef struct StepLine {
    const StepReport *report; // borrowed
    int n_steps;
    double tokens_per_s;
    const char *products;  // "sgemm", borrowed
    double products_share; // of their rate; NaN if unknown
    double left_s;         // until the end of the run
} StepLine;

// Writes at most `columns` and at most out_bytes - 1 characters; the step itself is never left out.
void step_line_write(char *out, size_t out_bytes, const StepLine *line, int columns);

#endif
