// The metrics behind answer_score(), each of one prediction and one reference. The caller has taken
// the prediction's first line where only that counts.
#ifndef MHA2MLA_EVAL_LONGBENCH_ANSWER_METRICS_H
#define MHA2MLA_EVAL_LONGBENCH_ANSWER_METRICS_H

#include "eval/longbench/answer_score.h"
#include "eval/longbench/py_text.h"
#include "eval/longbench/score_work.h"

// *out = the score, 0 to 1. Errors are those of answer_score().
typedef Status (*AnswerMetricForm)(double *out, ScoreWork *work, PyText prediction,
                                   PyText reference, const AnswerKey *key);

Status qa_f1(double *out, ScoreWork *work, PyText prediction, PyText reference,
             const AnswerKey *key);
Status rouge_l(double *out, ScoreWork *work, PyText prediction, PyText reference,
               const AnswerKey *key);
Status edit_sim_difflib(double *out, ScoreWork *work, PyText prediction, PyText reference,
                        const AnswerKey *key);
Status edit_sim_indel(double *out, ScoreWork *work, PyText prediction, PyText reference,
                      const AnswerKey *key);
Status classification(double *out, ScoreWork *work, PyText prediction, PyText reference,
                      const AnswerKey *key);
Status number_count(double *out, ScoreWork *work, PyText prediction, PyText reference,
                    const AnswerKey *key);
Status paragraph_retrieval(double *out, ScoreWork *work, PyText prediction, PyText reference,
                           const AnswerKey *key);

#endif
