// The questions of one task: rows read, prompts made and tokenized, ready to be scored any number
// of times, and what was scored.
//
//     TaskSet set = {0};
//     TRY_GOTO(release, task_set_read(&set, task, "tasks/piqa.jsonl.gz", limit));
//     TRY_GOTO(release, task_set_encode(&set, &encoding, rank, n_ranks));
//     for (int64_t first = 0; first < set.n_own; first += n)
//         TRY_GOTO(release, task_set_score(&set, scorer, first, n));
//     ... set.samples[i].log_likelihoods of this rank's own, others 0 ...
// release:
//     task_set_release(&set);
//
// Every share of the samples is tokenized and scored by one rank; all know the labels of all.
// Memory: 4 bytes per token, the beginning that the texts of a question have in common once.
#ifndef MHA2MLA_EVAL_TASKS_TASK_SET_H
#define MHA2MLA_EVAL_TASKS_TASK_SET_H

#include "base/file.h"
#include "eval/tasks/choice_scorer.h"
#include "eval/tasks/task.h"
#include "eval/tasks/task_request.h"

// A row that is evaluated.
typedef struct TaskSample {
    int64_t row; // of the file, from 0, blank lines not counted
    // Set by task_set_encode(), on every rank.
    int gold, n_choices;
    int group; // index in the set's groups; 0 of tasks without
    int64_t divisors[TASK_MAX_CHOICES];
    double log_likelihoods[TASK_MAX_CHOICES]; // nats; 0 until scored
} TaskSample;

// The texts of a sample that is this rank's to score.
typedef struct TaskQuestion {
    int64_t sample;
    int n_texts, n_shared;          // ids that all texts begin with
    int n_ids[TASK_MAX_CHOICES];    // of a text
    int n_scored[TASK_MAX_CHOICES]; // its last ones
    int64_t offset;                 // of the shared ids in the set's; the texts' rests follow
    int longest;                    // n_ids at most
} TaskQuestion;

typedef struct TaskSet {
    const Task *task;      // static
    char path[PATH_BYTES]; // of the file
    int64_t n_rows;        // that it has
    TaskSample *samples;   // owned [n_samples]
    int64_t n_samples;     // rows that are evaluated
    char **groups;         // owned [n_groups], each too: the topics in the order of the rows
    int64_t *group_rows;   // owned [n_groups]: rows of the file
    int n_groups;          // 0: the task has none
    TaskQuestion *own;     // owned [n_own], longest first
    int64_t n_own, n_cut;  // of which so many had to be cut
    TokenBuffer ids;       // owned
} TaskSet;

// Reads and checks the file. With limit > 0 the samples are the first rows or, of a task with
// groups, so many at even distances, since its rows are sorted. BAD_INPUT names file and row: those
// of json_rows_next() and of the task's row reader; a file without rows.
Status task_set_read(TaskSet *out, const Task *task, const char *path, int64_t limit);

// Makes the prompts of all samples and the ids of every n_ranks-th, from `rank` on. FAILED if the
// file is not what was read. BAD_INPUT as
// for task_request_continue().
Status task_set_encode(TaskSet *set, const TaskEncoding *encoding, int rank, int n_ranks);

// Scores the own questions [first, first + n). FAILED if a log-likelihood is not finite.
Status task_set_score(TaskSet *set, ChoiceScorer *scorer, int64_t first, int64_t n);

void task_set_release(TaskSet *set); // a zeroed one is allowed

// ---- scores ------------------------------------------------------------------------------------

// The choice whose log-likelihood, divided or not, is the largest; the first of several.
int task_sample_choose(const TaskSample *sample, bool is_divided);

typedef struct TaskScore {
    int64_t n;
    double acc, acc_stderr;           // shares of 1; the standard error of one sample is NaN
    double acc_norm, acc_norm_stderr; // by log-likelihood per character
    double chance;                    // the mean of 1 / n_choices
} TaskScore;

// Over the samples of a group, or over all for group < 0.
TaskScore task_set_measure(const TaskSet *set, int group);

#endif
