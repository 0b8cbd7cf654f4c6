// What came out of an evaluation of long-context sets, as a table and as a file of
// lm-evaluation-harness' layout.
//
//     const LongbenchResult result = {&evaluation, &model};
//     longbench_result_print(stdout, &result);
//     TRY(longbench_result_write(&result, "runs/demo/eval-longbench.json"));
//
// The JSON file is that of train/evaluate/tasks_result.h, with lm_eval's names of tasks and
// metrics: "longbench_qasper": {"qa_f1_score,none": 0.11, "qa_f1_score_stderr,none": 0.04}. In its
// object "mha2mla" the kind is "longbench", and there are besides:
//
//     "max_length": T, "cut": "reference" (eval/longbench/longbench_items.h), "n": rows,
//     "n_cut": prompts that were cut, "batch", "limit": N or null,
//     "scores": {SET: {"metric", "score", "stderr" (or null), "n", "n_cut", "max_gen",
//                "score_levenshtein": of code, with the ratio that fuzzywuzzy takes where
//                                     python-Levenshtein is installed}},
//     "average": of LongBench's 16 sets, "average_of": [...]         (if all 16 are there),
//     "compute": "float32" or "bfloat16", of products,
//     "tokens_per_s": {"prompt", "decode"}   (of the answers that this evaluation has made)
#ifndef MHA2MLA_TRAIN_EVALUATE_LONGBENCH_RESULT_H
#define MHA2MLA_TRAIN_EVALUATE_LONGBENCH_RESULT_H

#include "train/evaluate/evaluate_longbench.h"

#include <stdio.h>

typedef struct LongbenchResult {
    const LongbenchEvaluation *evaluation; // borrowed, scored
    const LongbenchModel *model;           // borrowed
} LongbenchResult;

// Scores are shown x 100, as papers have them.
void longbench_result_print(FILE *out, const LongbenchResult *result);

// Writes the file whole or not at all.
Status longbench_result_write(const LongbenchResult *result, const char *path);

#endif
