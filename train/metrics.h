// What a run says: metrics.jsonl in its directory, one object per line, and progress lines.
//
//     {"step": 10, "tokens": 20480, "loss": 3.21, "grad_norm": 0.93, "lr": 0.0001,
//      "tokens_per_s": 5120.0, "data_wait_s": 0.00001, "elapsed_s": 4.1}
//     {"step": 10, "tokens": 20480, "valid_loss": 3.05}
//     {"step": 11, ..., "skipped": true}    a spike of the gradient (train/guard.h): no update
//
// tokens: trained on so far. loss: mean over the step's targets, nats per token, before the update.
// grad_norm: global norm before clipping. data_wait_s: what the step waited for its samples, on the
// rank that waited longest. valid_loss at step 0 is that of the model as converted.
// elapsed_s: of all the run's lives, but for what was lost. A resumed run's file is cut back to the
// step it goes on from, so no step appears twice; a line that a full disk refuses is kept and
// written with the next one.
#ifndef MHA2MLA_TRAIN_METRICS_H
#define MHA2MLA_TRAIN_METRICS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct StepReport {
    int step;
    int64_t tokens;
    double loss, grad_norm, lr;
    double step_s;      // duration of the step
    double data_wait_s; // of it spent on waiting for samples
    bool is_skipped;    // a spike: no update
} StepReport;

typedef struct Metrics {
    bool is_open; // rank 0 alone
    int file;     // owned
    int64_t size_bytes;
    char *pending;  // owned: lines that are not in the file yet, NULL: none
    double start_s; // of this process, and what earlier ones of the run took
    double earlier_s;
    double last_line_s;
    int first_step; // of this process
    int n_steps;    // of the whole run
    int every;      // steps between plain lines
    bool is_terminal;
    bool line_open; // a live line waits for its newline
} Metrics;

// Where a resumed run goes on: what is in the file and not in the checkpoint will come again.
typedef struct MetricsStart {
    int step, valid_step; // the newest step; that of the newest validation, -1: none
} MetricsStart;

// Starts runs/NAME/metrics.jsonl anew, or goes on after `resumed` (NULL: anew), dropping what is
// later and warning if lines before it are missing. FAILED if it cannot be read or written.
Status metrics_open(Metrics *out, const char *run_dir, const MetricsStart *resumed, int n_steps,
                    int every);

// What was written is on the disk: before a checkpoint counts on its lines. FAILED if it is not.
Status metrics_sync(Metrics *metrics);

Status metrics_step(Metrics *metrics, const StepReport *report, double valid_loss);
Status metrics_validation(Metrics *metrics, int step, int64_t tokens, double valid_loss);
void metrics_close(Metrics *metrics);

#endif
