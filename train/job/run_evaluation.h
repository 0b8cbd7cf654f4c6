// The evaluation on tasks of the model that a run trains, as eval.* of its config say: between
// steps, into metrics.jsonl, and after the last step also into RUN/eval.json, with the numbers that
// `mha2mla eval RUN/model --tasks` gives for a float32 export with train.compute as --compute.
//
//     RunEvaluation evaluation = {0};
//     TRY(run_evaluation_open(&evaluation, &comm, &config, &shape, run_dir));  // before any step
//     ... context.evaluation = run_evaluation_hook(&evaluation) ...
//     run_evaluation_set_step(&evaluation, step);
//     run_evaluation_release(&evaluation);
//
// Memory: the questions' ids all the time; while evaluating a copy of the weights as inference has
// them, and the scorer's.
#ifndef MHA2MLA_TRAIN_JOB_RUN_EVALUATION_H
#define MHA2MLA_TRAIN_JOB_RUN_EVALUATION_H

#include "train/evaluate/evaluate_tasks.h"
#include "train/trainer.h"

typedef struct RunEvaluation {
    const Config *config; // borrowed, as all but tokenizer and tasks
    const Comm *comm;
    const char *run_dir;
    Tokenizer *tokenizer;  // owned
    TasksEvaluation tasks; // owned
    TrainerEvaluation hook;
} RunEvaluation;

// Reads the rows. Does nothing without eval.tasks. BAD_INPUT: no tokenizer, or what
// evaluate_tasks_open() refuses. Collective.
Status run_evaluation_open(RunEvaluation *out, const Comm *comm, const Config *config,
                           const ModelShape *shape, const char *run_dir);

// For the trainer; NULL without eval.tasks.
TrainerEvaluation *run_evaluation_hook(RunEvaluation *evaluation);

// The newest step that metrics.jsonl has an evaluation of; -1: none.
void run_evaluation_set_step(RunEvaluation *evaluation, int step);

// Whether the run has its RUN/eval.json, or is to have none.
bool run_evaluation_is_written(const Config *config, const char *run_dir);

void run_evaluation_release(RunEvaluation *evaluation); // a zeroed one is allowed

#endif
