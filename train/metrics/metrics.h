// What a run reports: metrics.jsonl in its directory, one object per line; event files for
// TensorBoard, if wanted; progress lines, a live one on a terminal.
//
//     TRY(metrics_open(&metrics, &options));   // rank 0 alone; other ranks leave metrics = {0}
//     TRY(metrics_step(&metrics, &report));
//     TRY(metrics_validation(&metrics, step, tokens, loss));
//     TRY(metrics_tasks(&metrics, step, tokens, scores, n_scores));
//     metrics_close(&metrics);
//
//     {"step": 10, "tokens": 20480, "loss": 3.21, "grad_norm": 0.93, "lr": 0.0001,
//      "tokens_per_s": 5120.0, "data_wait_s": 0.00001, "elapsed_s": 4.1,
//      "data_s": 0.00001, "forward_s": 0.1, "backward_s": 0.2, "reduce_s": 0.03, "update_s": 0.01}
//     {"step": 10, "tokens": 20480, "valid_loss": 3.05, "validation_set": "5d1f08a3"}
//     {"step": 10, "tokens": 20480, "tasks": {"arc_easy": 0.28, "piqa": 0.55}}
//     {"step": 11, ..., "skipped": true}    no update: a gradient spike (train/guard.h)
//
// tokens: trained on so far. loss: mean over the targets of the step, nats per token, before the
// update. With a teacher loss is the sum by the weights of train.loss, and "ce", "kl" and
// "attention_mse", without their weights, follow it. grad_norm: global norm before clipping.
// data_wait_s: time the step waited for samples, on the rank that waited longest. valid_loss at
// step 0 is that of the model as converted. validation_set: losses with another one were measured
// on other text; a run that is resumed with another set has losses on both at the step where it
// changed. tasks: the score of each task on which the model was evaluated
// (train/job/run_evaluation.h), a share of 1, and "average", the paper's of six, where all of them
// were. elapsed_s: running time of all starts of the run, without what a crash has undone.
//
// data_s, forward_s, ...: seconds of each phase (train/metrics/phases.h), mean over ranks; left out
// where 0. They are measured from the point of the step before where the ranks sum them up to the
// same point of this step. So update_s is of the update of the step before, gather_s the wait for
// the parameters of that update, and save_s and validation_s are of what came in between.
//
// When a run is resumed, lines later than its checkpoint are removed, so no step appears twice, and
// lines that something else has doubled or mixed are put in order (train/metrics/metrics_resume.h).
// A line that cannot be written because the disk is full is kept and written with the next one.
#ifndef MHA2MLA_TRAIN_METRICS_METRICS_H
#define MHA2MLA_TRAIN_METRICS_METRICS_H

#include "train/metrics/phases.h"
#include "train/metrics/tensorboard.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct StepReport {
    int step;
    int64_t tokens;
    double loss; // of the weighted losses, of which the next three are the parts
    double ce, kl, attention_mse;
    bool has_teacher; // else ce is all there is
    double grad_norm, lr;
    double step_s;      // duration of the step
    double data_wait_s; // part of step_s
    double phase_s[N_PHASES];
    bool is_skipped;   // no update: a gradient spike
    int64_t n_skipped; // steps so far
    double valid_loss; // the newest; NaN if there is none
    int valid_step;    // its step
} StepReport;

// The newest step and the step of the newest validation (-1: none) that a checkpoint has: later
// lines of the file will be written again.
typedef struct MetricsStart {
    int step, valid_step;
    const char *valid_set; // what the newest validation was measured on; "": not known
} MetricsStart;

typedef struct MetricsOptions {
    const char *run_dir, *host;
    const MetricsStart *resumed; // NULL: a new run
    int n_steps;                 // of the whole run
    int every;                   // steps between progress lines where there is no terminal
    bool tensorboard;
    const char *valid_set; // of this process's validation losses; "": there are none
    double step_flops;     // floating-point operations of a step on all ranks
    double machine_flops;  // per second, of square matrix products on all ranks; 0 if unknown
    const char *products;  // what these run by, "sgemm"; borrowed, as all texts here
} MetricsOptions;

enum { METRICS_SET_BYTES = 16 };

typedef struct Metrics {
    bool is_open; // rank 0 alone
    int file;     // owned
    int64_t size_bytes;
    char *pending;      // owned: lines that are not in the file yet; NULL if there are none
    double start_s;     // of this process
    double earlier_s;   // running time of earlier starts
    double last_line_s; // of the newest progress line
    int first_step;     // of this process
    int64_t tasks_step; // of the newest line of tasks; -1: there is none
    int n_steps, every; // as in the options
    bool is_terminal;
    char valid_set[METRICS_SET_BYTES];       // as in the options
    char first_valid_set[METRICS_SET_BYTES]; // of the whole file
    double step_flops, machine_flops;
    const char *products;
    TensorBoard board;
} Metrics;

// Starts a new RUN/metrics.jsonl, or continues the file after `resumed`: later lines are removed,
// and missing earlier ones are warned of. FAILED if it, or TensorBoard's file, cannot be read or
// written.
Status metrics_open(Metrics *out, const MetricsOptions *options);

// Flushes all lines to the disk, before a checkpoint counts on them.
Status metrics_sync(Metrics *metrics);

// FAILED if a line cannot be written for another reason than a full disk, or the disk stays full.
Status metrics_step(Metrics *metrics, const StepReport *report);
Status metrics_validation(Metrics *metrics, int step, int64_t tokens, double valid_loss);

// The score of a task, a share of 1. The name is borrowed.
typedef struct TaskValue {
    const char *name;
    double score;
} TaskValue;

// Writes nothing where the file has a line of tasks of this step already.
Status metrics_tasks(Metrics *metrics, int step, int64_t tokens, const TaskValue *tasks,
                     int n_tasks);
void metrics_close(Metrics *metrics);

#endif
