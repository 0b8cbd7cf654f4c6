// Results of evaluations side by side. Two averages can be compared if they are of one suite: the
// same kind, rules, shots, BOS and length, and the same tasks with as many items of each.
//
//     report_scores_compare(&report);
//     const ReportEval *eval = &report.runs[0].evals.list[0];
//     if (!isnan(eval->difference))
//         printf("%+.4f\n", eval->difference);
//
// The baseline of a suite is the baseline run's evaluation with the largest cache, so that a
// quantized cache of the baseline run has a difference of its own.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_SCORES_H
#define MHA2MLA_TRAIN_REPORT_REPORT_SCORES_H

#include "train/report/report.h"

// Sets suite, numbered from 0, and difference of all evaluations.
void report_scores_compare(Report *report);

// The evaluation that others of its suite are compared with; NULL if the baseline run has none of
// this suite, or if there is no baseline.
const ReportEval *report_scores_baseline(const Report *report, int suite);

// Why the evaluation has no difference to the baseline: "not comparable: rules lm-eval, there
// reference", "the baseline was not evaluated", "" if it has one or is the baseline.
enum { REASON_BYTES = 256 };
const char *report_scores_reason(char out[REASON_BYTES], const Report *report,
                                 const ReportEval *eval);

// "rules reference, 0 shots, BOS, up to 2048 tokens, 200 items each": what all evaluations of a
// suite have in common. Returns `out`.
const char *report_scores_settings(char out[REASON_BYTES], const ReportEval *eval);

// The tasks of all evaluations of this kind, each once, in the order found. The caller releases
// *out, an array of strings. FAILED: memory is short.
Status report_scores_tasks(json_t **out, const Report *report, EvalKind kind);

// The same of the tasks in metrics.jsonl.
Status report_scores_curve_tasks(json_t **out, const Report *report);

// Items of a task: the fewest and the most in one evaluation; 0 where one is not known.
void report_scores_items(int64_t *fewest, int64_t *most, const ReportEval *eval);

bool report_scores_has(const Report *report, EvalKind kind);
bool report_scores_has_any(const Report *report); // of both kinds, or in metrics.jsonl

// The cache relative to the unconverted model's in bfloat16.
double report_scores_share(const ReportRun *run, const ReportEval *eval);

// The terminal's tables: a row for each evaluation, a table for each kind. Nothing if no run was
// evaluated. FAILED: memory is short.
Status report_scores_print(FILE *out, const Report *report);

// scores.gp: the script of gnuplot's that draws scores.svg and scores.png. There is an evaluation.
void report_scores_write_script(FILE *out, const Report *report);

// Puts the page's data of all evaluations into `root`. False: memory is short.
bool report_scores_set(json_t *root, const Report *report);

// The same of a run's scores in metrics.jsonl, into the run's object.
bool report_scores_set_curve(json_t *object, const ReportRun *run);

// tasks.csv: a row for each score and average, and for each score in metrics.jsonl.
void report_scores_write_csv(FILE *out, const Report *report);

#endif
