// A run as `compare` reads it from its directory, whether it is finished, stopped or running:
//
//     run.json         what was trained (train/job/run_json.h); optional in it: "resumed_steps",
//                      "pretraining_tokens", "config" and "config_changes"
//     metrics.jsonl    a line per step, per validation and per evaluation on tasks; a last line
//                      without its end is not read
//     lock             held (flock) by the process that trains, so a held one means: running
//     eval*.json       optional: results of evaluations (report_eval.h)
//
//     ReportRun run;
//     TRY(report_run_read(&run, "runs/demo-dkv8"));
//     last = run.points[run.n_points - 1].step;     // if n_points > 0
//     report_run_release(&run);
//
// Errors are BAD_INPUT and name file and line. A number that was not measured is NaN.
//
// A run that was resumed with other validation shards has validation losses of several sets. They
// are all drawn, but only those of the newest set are summed up and compared with other runs.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_RUN_H
#define MHA2MLA_TRAIN_REPORT_REPORT_RUN_H

#include "train/report/report_color.h"
#include "train/report/report_eval.h"

typedef enum RunStatus {
    RUN_DONE,
    RUN_RUNNING, // its lock is held
    RUN_STOPPED, // ended before its last step
} RunStatus;

// What is known of a step: its line, its validation's, and what report_curves.h makes of them. A
// step that was validated on two sets has two points, the later set in the second.
typedef struct RunPoint {
    int step;
    int64_t tokens; // trained on so far
    double loss, lr, tokens_per_s;
    double valid_loss;
    int valid_set;    // of valid_loss, in the run's valid_sets; -1: no validation
    double smoothed;  // loss, over neighbouring steps
    double gap;       // smoothed minus the baseline's at the same tokens
    double valid_gap; // valid_loss minus the baseline's at the same tokens
    bool is_drawn;    // not thinned out
} RunPoint;

// Scores on tasks while the run was trained; the run has a RunPoint of the same step.
typedef struct TaskPoint {
    int step;
    int64_t tokens;
    json_t *scores; // owned: object, task -> 0 to 1; one of them may be the "average"
} TaskPoint;

typedef struct RunSummary {
    bool is_validation; // on the newest set; else the losses are of training, smoothed
    double converted;   // right after conversion
    double best, final;
    bool is_gap_of_validation;
    double gap;            // to the baseline, at gap_tokens
    int64_t gap_tokens;    // the run's end, or as far as the baseline goes
    int64_t within_tokens; // from here on the gap is small; -1: never
} RunSummary;

enum { SET_NAME_BYTES = 16 };
typedef char SetName[SET_NAME_BYTES]; // of a validation set; "": older runs do not say

typedef struct ReportRun {
    const char *dir;               // borrowed from the caller
    json_t *json;                  // owned: run.json
    const char *name, *rope, *svd; // borrowed from it
    char *label;                   // owned: the name, with the directory where two share a name
    char color[COLOR_BYTES], color_on_dark[COLOR_BYTES]; // made by report_look_choose()
    int dash;                                            // 1: a solid line; made likewise
    bool is_mla;
    int64_t d_kv, rope_pairs;
    int64_t latent;                 // of the shared form, whose rope_pairs are a layer's; or 0
    int64_t cache, original_cache;  // numbers per token
    int64_t pretraining_tokens;     // of the original; 0: not known
    int64_t distill_tokens;         // read by local distillation; 0: there was none
    int64_t distill_trained_tokens; // of the steps of each of its layers
    double original_loss;           // validation loss before conversion, on original_set
    SetName original_set;
    const json_t *config;  // borrowed from run.json: key -> text; NULL: older runs do not say
    const json_t *changes; // borrowed likewise: what was changed while the run was trained
    int n_steps;           // when done
    RunStatus state;
    RunPoint *points; // owned [n_points], steps ascend, tokens do not descend
    int n_points;
    SetName *valid_sets; // owned [n_valid_sets], in the order of their first losses
    int n_valid_sets;
    int newest_set; // in valid_sets: of the newest validation loss; -1: there is none
    int *resumed;   // owned [n_resumed]: steps from which the run was resumed, ascending
    int n_resumed;
    int n_skipped;       // steps whose gradient was a spike: no update
    double tokens_per_s; // median over steps
    double wall_s;       // over all of its processes
    ReportEvals evals;
    TaskPoint *task_points; // owned [n_task_points], steps ascend
    int n_task_points;
    RunSummary summary; // made by report_curves_summarize()
} ReportRun;

// Reads all of a run but its label.
Status report_run_read(ReportRun *out, const char *dir);

// Reads metrics.jsonl into points, validation sets, resumed steps and the two measures of time.
Status report_run_read_metrics(ReportRun *run, const char *path);

// Adds a step from which the run was resumed, once. FAILED without memory.
Status report_run_add_resumed(ReportRun *run, int step);

void report_run_release(ReportRun *run);

// The last step in metrics.jsonl; 0 if there is none.
int report_run_last_step(const ReportRun *run);
int64_t report_run_tokens(const ReportRun *run);

// The newest validation loss; that of step 0, after the conversion; and that of the original model.
// NaN if there is none, or if it was measured on another set than the newest.
double report_run_last_valid(const ReportRun *run);
double report_run_start_valid(const ReportRun *run);
double report_run_original_valid(const ReportRun *run);

// Whether losses on two validation sets can be compared; those of older runs, which do not name
// theirs, are taken to be.
bool report_run_is_same_set(const SetName a, const SetName b);

// Whether the point has a validation loss on an earlier set than the newest.
static inline bool report_run_is_earlier_set(const ReportRun *run, const RunPoint *point)
{
    return point->valid_set >= 0 && point->valid_set != run->newest_set;
}

// KV cache relative to the original's, 1 for the original.
double report_run_share(const ReportRun *run);

#endif
