// The multiple-choice tasks over the ranks of a job, for a command and for a run that evaluates the
// model it trains.
//
//     TasksEvaluation evaluation = {0};
//     const TasksRequest request = {.dir = "tasks", .rules = TASK_RULES_REFERENCE, .limit = 200};
//     const TasksModel model = {&shape, tokenizer, begin_id, "runs/demo/model"};
//     TRY_GOTO(release, evaluate_tasks_open(&evaluation, comm, &request, &model));
//     TRY_GOTO(release, evaluate_tasks_run(&evaluation, comm, &weights, &format));
//     for (int i = 0; i < evaluation.n_sets; i++)
//         ... evaluate_tasks_shown(&evaluation.sets[i]) ...
//     ... evaluate_tasks_average(&average, &evaluation) ...
// release:
//     evaluate_tasks_release(&evaluation);
//
// The samples of a task are divided over the ranks; all of them have all log-likelihoods
// afterwards, the same bits on any number of ranks. Opening reads and tokenizes; running may be
// repeated, with other weights of the same shape. Memory: the ids of a rank's questions, and while
// running what a scorer takes.
#ifndef MHA2MLA_TRAIN_EVALUATE_EVALUATE_TASKS_H
#define MHA2MLA_TRAIN_EVALUATE_EVALUATE_TASKS_H

#include "eval/tasks/task_set.h"
#include "train/parallel/comm.h"

// What to evaluate. Texts are borrowed.
typedef struct TasksRequest {
    const char *dir;  // of TASK.jsonl, .jsonl.gz or .jsonl.zst
    const char *only; // "arc_easy,piqa"; NULL: all tasks of the rules whose files are there
    TaskRules rules;
    int64_t limit;      // samples of a task at most; 0: all
    int64_t max_length; // tokens of a text at most; 0: evaluate_tasks_max_length()
} TasksRequest;

// What texts become ids for. All is borrowed.
typedef struct TasksModel {
    const ModelShape *shape;
    const Tokenizer *tokenizer;
    int32_t begin_id; // what an empty text begins with; -1: no token does
    const char *name; // in errors
} TasksModel;

enum { EVALUATE_MAX_TASKS = 16 };

typedef struct TasksEvaluation {
    TaskRules rules;
    int64_t limit;
    int max_length;
    bool puts_begin;                  // the tokenizer puts a token before every text
    int longest;                      // tokens of a text that is run, over all ranks
    int64_t n_cut;                    // questions that were cut, over all ranks
    TaskSet sets[EVALUATE_MAX_TASKS]; // owned [n_sets]
    int n_sets;
    ChoiceScorerCounts counts; // of the last run, over all ranks; peak_bytes of the largest
} TasksEvaluation;

// The reference takes 2048 tokens, lm-eval what the model was made for; neither takes more than
// that.
int evaluate_tasks_max_length(TaskRules rules, const ModelShape *shape);

// BAD_INPUT for a name in `only` that is no task of the rules, for a directory or a file that is
// missing or differs between ranks, and what task_set_read() and task_set_encode() refuse.
// Collective.
Status evaluate_tasks_open(TasksEvaluation *out, const Comm *comm, const TasksRequest *request,
                           const TasksModel *model);

// BAD_INPUT with the numbers if weights of these types, activations and cache exceed the machine's
// memory. Not collective.
Status evaluate_tasks_check_memory(const TasksEvaluation *evaluation, const TasksModel *model,
                                   DType dtype, ComputeType compute, const KvFormat *format);

// STOPPED if a stop is requested meanwhile. The weights are this rank's copy. Collective.
Status evaluate_tasks_run(TasksEvaluation *evaluation, const Comm *comm,
                          const InferWeights *weights, const KvFormat *format);

void evaluate_tasks_release(TasksEvaluation *evaluation); // a zeroed one is allowed

// The number that a table shows of a task: acc_norm where its rules have it, else acc.
typedef struct TaskShown {
    const char *metric;           // static: "acc_norm" or "acc"
    double score, standard_error; // shares of 1; the error of a single sample is NaN
    int64_t n;
    double chance;
    bool is_near_chance; // within two standard errors of it, the score's or chance's own
} TaskShown;

TaskShown evaluate_tasks_shown(const TaskSet *set);

// The paper's average of six, in which ARC is the mean of easy and challenge.
enum { EVALUATE_AVERAGED = 6 };
typedef struct TasksAverage {
    const char *members[EVALUATE_AVERAGED]; // static
    double score, standard_error;
} TasksAverage;

// False if one of the tasks was not evaluated.
bool evaluate_tasks_average(TasksAverage *out, const TasksEvaluation *evaluation);

#endif
