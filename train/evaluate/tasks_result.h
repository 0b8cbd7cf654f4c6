// What came out of an evaluation of tasks, as a table, as a file of lm-evaluation-harness' layout,
// and as a line for every sample.
//
//     const TasksResult result = {&evaluation, "runs/demo/model", &shape, &format};
//     tasks_result_print(stdout, &result);
//     TRY(tasks_result_write(&result, "runs/demo/eval-int4.json"));
//     TRY(tasks_result_write_samples(&result, "samples.jsonl"));
//
// The JSON file has what lm_eval writes, "results" ("acc,none", "acc_stderr,none", ...), "groups",
// "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "config",
// "model_name"; mmlu is a group of its subjects. A standard error that is not known is "N/A" there.
// Besides, an object of this program's:
//
//     "mha2mla": {"format": "mha2mla-eval", "version": 1, "kind": "tasks", "model": DIR,
//                 "rules": "reference" or "lm-eval", "bos": whether a token is put before a text,
//                 "max_length": N, "shots": 0, "limit": N or null, "n_cut": questions cut on the
//                 left, "scores": {TASK: {"metric", "score", "stderr" (or null), "n", "chance",
//                                   "near_chance"}},
//                 "average": of six, "average_stderr", "average_of": [...]  (if all six are there),
//                 "cache": {"format", "scheme", "bits": [value, key], "bytes_per_token",
//                           "original_bytes_per_token": of the model before its conversion in
//                           bfloat16},
//                 "compute": "float32" or "bfloat16", of products,
//                 "step", "tokens": within a run}
//
// A line of the samples:
//
//     {"task", "index": row from 0, "gold", "log_likelihoods": [...], "prediction": by them,
//      "prediction_norm": by them per character, "acc": 0 or 1, "acc_norm"}
//
// Nothing in either file depends on the number of ranks or on the clock.
#ifndef MHA2MLA_TRAIN_EVALUATE_TASKS_RESULT_H
#define MHA2MLA_TRAIN_EVALUATE_TASKS_RESULT_H

#include "base/json.h"
#include "train/evaluate/evaluate_tasks.h"

#include <stdio.h>

typedef struct TasksResult {
    const TasksEvaluation *evaluation; // borrowed, as all here; it has been run
    const char *model;
    const ModelShape *shape;
    const KvFormat *format;
    ComputeType compute; // that the scores were made with
    bool is_in_run;      // step and tokens count
    int64_t step, tokens;
} TasksResult;

void tasks_result_print(FILE *out, const TasksResult *result);

// Both write the file whole or not at all.
Status tasks_result_write(const TasksResult *result, const char *path);
Status tasks_result_write_samples(const TasksResult *result, const char *path);

// "cache" of the file, for others that write one; NULL without memory.
json_t *tasks_result_cache(const KvFormat *format, const ModelShape *shape);

#endif
