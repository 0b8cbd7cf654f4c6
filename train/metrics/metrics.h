// What a run says: metrics.jsonl in its directory, one object per line, event files for TensorBoard
// if wanted, and progress lines: a live one on a terminal, of what fits into its columns.
//
//     TRY(metrics_open(&metrics, &options));   // rank 0 alone; elsewhere metrics = {0}
//     TRY(metrics_step(&metrics, &report));
//     TRY(metrics_validation(&metrics, step, tokens, loss));
//     metrics_close(&metrics);
//
//     {"step": 10, "tokens": 20480, "loss": 3.21, "grad_norm": 0.93, "lr": 0.0001,
//      "tokens_per_s": 5120.0, "data_wait_s": 0.00001, "elapsed_s": 4.1,
//      "data_s": 0.00001, "forward_s": 0.1, "backward_s": 0.2, "reduce_s": 0.03, "update_s": 0.01}
//     {"step": 10, "tokens": 20480, "valid_loss": 3.05}
//     {"step": 11, ..., "skipped": true}    a spike of the gradient (train/guard.h): no update
//
// tokens: trained on so far. loss: mean over the step's targets, nats per token, before the update.
// grad_norm: global norm before clipping. data_wait_s: what the step waited for its samples, on the
// rank that waited longest. valid_loss at step 0 is that of the model as converted.
// data_s, forward_s, ...: seconds of each phase (train/metrics/phases.h), mean over ranks, between
// the sum over ranks in this step and that in the step before; so update_s is that of the step
// before, gather_s what was waited for its parameters, and save_s and validation_s come between.
// Left out where 0. elapsed_s: of all the run's lives, but for what was lost. A resumed run's file
// is cut back to the step it goes on from, so no step appears twice; a line that a full disk
// refuses is kept and written with the next one.
#ifndef MHA2MLA_TRAIN_METRICS_METRICS_H
#define MHA2MLA_TRAIN_METRICS_METRICS_H

#include "train/metrics/phases.h"
#include "train/metrics/tensorboard.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct StepReport {
    int step;
    int64_t tokens;
    double loss, grad_norm, lr;
    double step_s;      // duration of the step
    double data_wait_s; // of it spent on waiting for samples
    double phase_s[N_PHASES];
    bool is_skipped;   // a spike: no update
    int64_t n_skipped; // so far
    double valid_loss; // the last one, of valid_step; NaN: none yet
    int valid_step;
} StepReport;

// Where a resumed run goes on: what is in the file and not in the checkpoint will come again.
typedef struct MetricsStart {
    int step, valid_step; // the newest step; that of the newest validation, -1: none
} MetricsStart;

typedef struct MetricsOptions {
    const char *run_dir, *host;
    const MetricsStart *resumed; // NULL: anew
    int n_steps;                 // of the whole run
    int every;                   // steps between plain lines
    bool tensorboard;
    double step_flops;    // of all ranks
    double machine_flops; // what sgemm does per s on all of them; 0: not known
} MetricsOptions;

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
    double step_flops, machine_flops;
    TensorBoard board;
} Metrics;

// Starts runs/NAME/metrics.jsonl anew, or goes on after `resumed`, dropping what is later and
// warning if lines before it are missing. FAILED if it, or TensorBoard's file, cannot be read or
// written.
Status metrics_open(Metrics *out, const MetricsOptions *options);

// What was written is on the disk: before a checkpoint counts on its lines. FAILED if it is not.
Status metrics_sync(Metrics *metrics);

Status metrics_step(Metrics *metrics, const StepReport *report);
Status metrics_validation(Metrics *metrics, int step, int64_t tokens, double valid_loss);
void metrics_close(Metrics *metrics);

#endif
