// The multiple-choice tasks, by two sets of rules: what text a model gets for a row, and which
// numbers are reported. All are asked without examples (0 shots).
//
//     rules       reference                              lm-eval
//     source      the paper's code, with lighteval       EleutherAI's harness, 0.4.9.2 and later
//     hellaswag   two blanks before an ending            one
//     winogrande  the option is scored with the rest     the rest alone, after either option
//     mmlu        the text of a choice                   its letter; mmlu_continuation: its text
//     openbookqa  validation split                       test split
//
//     const Task *task = task_find("piqa", TASK_RULES_LM_EVAL);
//     TaskItem item = {0};
//     TRY(task->read(&row, json, where));
//     TRY(task->prompt(&item, &row));
//     task_item_release(&item);
#ifndef MHA2MLA_EVAL_TASKS_TASK_H
#define MHA2MLA_EVAL_TASKS_TASK_H

#include "data/tokenizer/tokenizer_text.h"
#include "eval/tasks/task_row.h"

typedef enum TaskRules { TASK_RULES_REFERENCE, TASK_RULES_LM_EVAL } TaskRules;

extern const char *const task_rules_names[]; // by value of the enum, closed by NULL

// The texts of a row. Starts as {0}; its memory serves the next row.
typedef struct TaskItem {
    Bytes contexts[TASK_MAX_CHOICES];      // owned; [n_contexts]
    Bytes continuations[TASK_MAX_CHOICES]; // owned; [n_choices]
    int64_t divisors[TASK_MAX_CHOICES];    // of the log-likelihoods, for acc_norm
    int n_contexts;                        // one for all choices, or one for each
    int n_choices, gold;
} TaskItem;

typedef Status TaskPrompt(TaskItem *out, const TaskRow *row);

typedef struct Task {
    const char *name; // lm-eval's; the paper's code has the same
    TaskRules rules;
    const char *files[2]; // names without .jsonl, .jsonl.gz; the first that is there. NULL: none
    TaskRowReader *read;
    TaskPrompt *prompt;
    const char *member; // of the average: its name there; NULL: it is not in it
    double version;     // lm-eval's
    bool has_acc_norm;  // else acc alone is reported
    bool has_groups;    // rows have a `topic` by which scores are reported, too
    bool is_only_named; // evaluated only where it is asked for by name
} Task;

// The tasks of the rules, in the order of a table; NULL for index == their number.
const Task *task_at(TaskRules rules, int index);

// NULL: the rules have no such task.
const Task *task_find(const char *name, TaskRules rules);

void task_item_release(TaskItem *item);

#endif
