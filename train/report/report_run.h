// A finished, broken off or still going run as `compare` reads it, from its directory:
//
//     run.json         what was trained; "resumed_steps", "pretraining_tokens" where known
//     metrics.jsonl    a line per step and per validation; a last line without its end is not read
//     lock             held (flock) by the process that trains, so a held one means: still going
//     eval*.json       optional: {"tasks": {"hellaswag": 0.41, "arc": {"score": 0.3}}}
//
//     ReportRun run;
//     TRY(report_run_read(&run, "runs/demo-dkv8"));
//     last = run.points[run.n_points - 1].step;     // if n_points > 0
//     report_run_release(&run);
//
// Errors are BAD_INPUT and name file and line. A number that was not measured is NaN.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_RUN_H
#define MHA2MLA_TRAIN_REPORT_REPORT_RUN_H

#include "base/json.h"

typedef enum RunStatus {
    RUN_DONE,
    RUN_GOING,   // its lock is held
    RUN_STOPPED, // ended before its last step
} RunStatus;

// What is known of a step: its line, its validation's, and what report_curves.h makes of them.
typedef struct RunPoint {
    int step;
    int64_t tokens; // trained on so far
    double loss, lr, tokens_per_s;
    double valid_loss;
    double smoothed;  // loss, over neighbouring steps
    double gap;       // smoothed minus the baseline's at the same tokens
    double valid_gap; // valid_loss minus the baseline's at the same tokens
    bool is_drawn;    // not thinned out
} RunPoint;

typedef struct RunSummary {
    bool is_validation; // else the losses are of training, smoothed
    double converted;   // right after conversion
    double best, final;
    bool is_gap_of_validation;
    double gap;            // to the baseline, at gap_tokens
    int64_t gap_tokens;    // the run's end, or as far as the baseline goes
    int64_t within_tokens; // from here on the gap is small; -1: never
} RunSummary;

typedef struct ReportRun {
    const char *dir;               // borrowed from the caller
    json_t *json;                  // owned: run.json
    const char *name, *rope, *svd; // borrowed from it
    char *label;                   // owned: the name, with the directory where two share a name
    bool is_mla;
    int64_t d_kv, rope_pairs;
    int64_t cache, original_cache; // numbers per token
    int64_t pretraining_tokens;    // of the original; 0: not known
    double original_loss;          // validation loss before conversion
    int n_steps;                   // when done
    RunStatus state;
    RunPoint *points; // owned [n_points], steps ascend, tokens do not descend
    int n_points;
    int *resumed; // owned [n_resumed]: steps from which the run was taken up again, ascending
    int n_resumed;
    int n_skipped;       // steps whose gradient was a spike: no update
    double tokens_per_s; // median over steps
    double wall_s;       // over all of its processes
    json_t *tasks;       // owned: object, task -> number; NULL: not evaluated
    RunSummary summary;  // made by report_summarize()
} ReportRun;

// Reads all of a run but its label.
Status report_run_read(ReportRun *out, const char *dir);

// Reads metrics.jsonl into points, resumed and the two measures of time.
Status report_run_read_metrics(ReportRun *run, const char *path);

// Notes a step from which the run was taken up again. FAILED without memory.
Status report_run_note_resumed(ReportRun *run, int step);

void report_run_release(ReportRun *run);

// The last step in metrics.jsonl; 0 if there is none.
int report_run_last_step(const ReportRun *run);
int64_t report_run_tokens(const ReportRun *run);

// The newest validation loss, and that of step 0; NaN if there is none.
double report_run_last_valid(const ReportRun *run);
double report_run_start_valid(const ReportRun *run);

// KV cache relative to the original's, 1 for the original.
double report_run_share(const ReportRun *run);

#endif
