// What eval.tasks of a config takes in memory beside training (train/job/run_evaluation.h): the
// questions and their tokenizer all the time; while evaluating the weights as inference has them,
// and a scorer.
#ifndef MHA2MLA_TRAIN_PLAN_EVALUATION_MEMORY_H
#define MHA2MLA_TRAIN_PLAN_EVALUATION_MEMORY_H

#include "eval/tasks/task.h"
#include "train/config/config.h"

TaskRules evaluation_rules(const EvalConfig *config);

// Bytes of a rank; 0 without eval.tasks. The files' rows are counted and not read; files that are
// missing count as nothing, since a plan can be made before there are data.
int64_t evaluation_bytes(const Config *config, const ModelShape *shape, int n_ranks, int n_threads);

#endif
