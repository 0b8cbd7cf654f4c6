// What a run says: metrics.jsonl in its directory, one object per line, and progress lines.
//
//     {"step": 10, "tokens": 20480, "loss": 3.21, "grad_norm": 0.93, "lr": 0.0001,
//      "tokens_per_s": 5120.0, "data_wait_s": 0.00001, "elapsed_s": 4.1}
//     {"step": 10, "tokens": 20480, "valid_loss": 3.05}
//
// tokens: trained on so far. loss: mean over the step's targets, nats per token, before the update.
// grad_norm: global norm before clipping. data_wait_s: what the step waited for its samples, on the
// rank that waited longest. valid_loss at step 0 is that of the model as converted.
#ifndef MHA2MLA_TRAIN_METRICS_H
#define MHA2MLA_TRAIN_METRICS_H

#include "base/status.h"

#include <stdint.h>
#include <stdio.h>

typedef struct StepReport {
    int step;
    int64_t tokens;
    double loss, grad_norm, lr;
    double step_s;      // duration of the step
    double data_wait_s; // of it spent on waiting for samples
} StepReport;

typedef struct Metrics {
    FILE *file; // owned; NULL on ranks above 0
    double start_s;
    double last_line_s;
    int n_steps; // of the whole run
    int every;   // steps between plain lines
    bool is_terminal;
    bool line_open; // a live line waits for its newline
} Metrics;

// Starts runs/NAME/metrics.jsonl. FAILED if it cannot be written.
Status metrics_open(Metrics *out, const char *run_dir, int n_steps, int every);

Status metrics_step(Metrics *metrics, const StepReport *report, double valid_loss);
Status metrics_validation(Metrics *metrics, int step, int64_t tokens, double valid_loss);
void metrics_close(Metrics *metrics);

#endif
