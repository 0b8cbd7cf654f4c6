// What a run scored in its evaluations: the files RUN/eval*.json that `eval --out` writes, one for
// each cache format, rule set and kind.
//
//     { "results": ...,                                    // for readers of lm-eval's files
//       "mha2mla": { "format": "mha2mla-eval", "version": 1, "kind": "tasks" or "longbench",
//                    "rules": "reference", "bos": true, "max_length": 2048, "shots": 0,
//                    "scores": {"piqa": {"metric": "acc_norm", "score": 0.5, "stderr": 0.03,
//                                        "n": 200, "chance": 0.5}, ...},   // 0 to 1
//                    "average": 0.31, "average_stderr": 0.01, "average_of": ["arc", "piqa", ...],
//                    "cache": {"format": "channel 4 bits", "scheme": "channel", "bits": [4, 4],
//                              "bytes_per_token": 123.5, "original_bytes_per_token": 720.0},
//                    "step": 300, "tokens": 1228800, "n_cut": 3 } }
//
// Optional are "bos", "max_length", "shots", those of the average, "bits",
// "original_bytes_per_token", "step", "tokens", "n_cut", and of a score all but "score". Others are
// ignored.
//
//     ReportEvals evals = {0};
//     TRY(report_evals_read(&evals, "runs/demo-dkv8"));
//     for (int i = 0; i < evals.n; i++)
//         printf("%s: %.4f\n", evals.list[i].cache,
//                evals.list[i].average.score);
//     report_evals_release(&evals);
//
// Errors are BAD_INPUT and name file and key. A file of another program, as lm-eval's own results,
// is left out with a warning.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_EVAL_H
#define MHA2MLA_TRAIN_REPORT_REPORT_EVAL_H

#include "base/json.h"

typedef enum EvalKind { EVAL_TASKS, EVAL_LONGBENCH, N_EVAL_KINDS } EvalKind;

typedef struct EvalScore {
    const char *task, *metric; // borrowed from the file; metric "" where it does not say
    double score;              // 0 to 1
    double error;              // standard error; NaN: not known
    double chance;             // score of guessing, 1 / choices; NaN: there is none
    int64_t n;                 // items; 0: not known
} EvalScore;

typedef struct ReportEval {
    json_t *json; // owned
    char *file;   // owned: its name without the directory, UTF-8
    EvalKind kind;
    const char *rules, *cache, *scheme; // borrowed from json
    int64_t value_bits, key_bits;       // of the cache; 0: not known
    double bytes_per_token;             // of the cache, after quantization
    double original_bytes;              // of the unconverted model's bfloat16 cache; NaN: not known
    int bos;                            // 1: was put, 0: was not, -1: not known
    int64_t shots, max_length;          // -1: not known
    int64_t step, tokens;               // of the training; -1: not known
    int64_t n_cut;                      // prompts that were cut; -1: not known
    EvalScore *scores;                  // owned [n_scores], in the order of the file
    int n_scores;
    EvalScore average;    // its metric is "", its n 0
    bool is_average_ours; // the file has none, as a task is missing: the mean of the scores
    int suite;            // made by report_scores.h, as the next one
    double difference;    // of the average to the baseline's; NaN: not comparable
} ReportEval;

typedef struct ReportEvals {
    ReportEval
        *list; // owned [n]: by kind, then from the largest cache to the smallest, then by file
    int n;
    json_t *old; // owned: object, task -> number, of older files {"tasks": {"piqa": 0.7}}; NULL
} ReportEvals;

// Reads the files eval*.json in `dir`. No such file is no error.
Status report_evals_read(ReportEvals *evals, const char *dir);

void report_evals_release(ReportEvals *evals);

// The score of the task; NULL if it was not evaluated.
const EvalScore *report_eval_find(const ReportEval *eval, const char *task);

// 1 / choices of the task; NaN where nothing is chosen, or for a task that is not known.
double report_eval_chance(const char *task);

// Whether the score lies within two standard errors of guessing.
bool report_eval_is_near_chance(const EvalScore *score);

// "tasks", "longbench".
extern const char *const report_eval_kinds[N_EVAL_KINDS];

// Whether the text can be shown on a terminal: no control characters.
bool report_eval_is_printable(const char *text);

#endif
