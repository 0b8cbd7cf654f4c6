// A row of a task's file, whose columns are those of the data set on Hugging Face:
//
//     hellaswag       activity_label, ctx_a, ctx_b, endings[], label "0" ..
//     arc_*           question, choices {text[], label[]}, answerKey
//     openbookqa      question_stem, choices {text[], label[]}, answerKey
//     piqa            goal, sol1, sol2, label 0 or 1
//     winogrande      sentence with one "_", option1, option2, answer "1" or "2"
//     mmlu            question, subject, choices[], answer 0 ..
//
// Labels may be strings or numbers. Errors are BAD_INPUT with the row's place and the column: one
// that is missing or of another type, a label that is no choice, a row without a label, as test
// splits have.
#ifndef MHA2MLA_EVAL_TASKS_TASK_ROW_H
#define MHA2MLA_EVAL_TASKS_TASK_ROW_H

#include "base/json.h"

enum { TASK_MAX_CHOICES = 8 };

// The texts are borrowed from the row and valid UTF-8.
typedef struct TaskRow {
    const char *question;
    const char *more;  // hellaswag: ctx_b; else NULL
    const char *topic; // hellaswag: activity_label; mmlu: subject; else NULL
    const char *choices[TASK_MAX_CHOICES];
    int n_choices, gold;
} TaskRow;

// `where` names the row in errors.
typedef Status TaskRowReader(TaskRow *out, const json_t *row, const char *where);

TaskRowReader task_row_hellaswag;
TaskRowReader task_row_arc;
TaskRowReader task_row_openbookqa;
TaskRowReader task_row_piqa;
TaskRowReader task_row_winogrande;
TaskRowReader task_row_mmlu;

#endif
