// The sets of a long-context evaluation: LongBench's 16 English ones, and those that hide something
// in a long text, RULER's and passkeys. What a set asks, how long its answers may be and how they
// are scored are facts of a table.
//
//     const LongbenchSet *set = longbench_find_set("qasper");
//     LongbenchSet needles;
//     if (longbench_needle_set(&needles, "niah_multikey_3", first_row)) ...
//
// LongBench: THUDM/LongBench 2e00731f, config/dataset2prompt.json, dataset2maxlen.json and
// eval.py. RULER: NVIDIA/RULER, scripts/data/synthetic/constants.py and
// scripts/eval/synthetic/constants.py. Passkeys: jy-yuan/KIVI, long_context_example.py.
#ifndef MHA2MLA_EVAL_LONGBENCH_LONGBENCH_SETS_H
#define MHA2MLA_EVAL_LONGBENCH_LONGBENCH_SETS_H

#include "eval/longbench/answer_score.h"

#include <jansson.h>

typedef enum LongbenchMetric {
    LONGBENCH_QA_F1,
    LONGBENCH_ROUGE_L,
    LONGBENCH_EDIT_SIM,
    LONGBENCH_CLASSIFICATION,
    LONGBENCH_COUNT,
    LONGBENCH_RETRIEVAL,
    LONGBENCH_MATCH_ALL, // the share of the answers that are in the prediction, without case
    LONGBENCH_MATCH_ANY, // 1 if one of them is
    N_LONGBENCH_METRICS,
} LongbenchMetric;

enum { LONGBENCH_NAME_BYTES = 96 };

typedef struct LongbenchSet {
    char name[LONGBENCH_NAME_BYTES]; // of its file, without .jsonl
    LongbenchMetric metric;
    int max_gen;          // tokens of an answer at most
    const char *template; // static; with {context} and {input}
    bool first_line_only; // of an answer counts
    bool is_needle;       // not one of LongBench's, in no average
} LongbenchSet;

enum { N_LONGBENCH_SETS = 16 };
extern const LongbenchSet longbench_sets[]; // [N_LONGBENCH_SETS], in the paper's order

// NULL: LongBench has no such English set.
const LongbenchSet *longbench_find_set(const char *name);

// What a file of rows like this one is, by their keys: "outputs" (RULER; the file's name says which
// of its tasks, else it is taken for a needle task), "target" and "passkey_position" (passkeys).
// False: neither.
bool longbench_needle_set(LongbenchSet *out, const char *name, const json_t *row);

// "qa_f1"; and as lm-evaluation-harness names it, "qa_f1_score".
const char *longbench_metric_name(LongbenchMetric metric);
const char *longbench_metric_lm_eval_name(LongbenchMetric metric);

// The score of a prediction, 0 to 1. Errors of answer_score().
Status longbench_score(double *out, const LongbenchSet *set, AnswerText prediction,
                       const AnswerKey *key);

#endif
