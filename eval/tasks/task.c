// Prompts are those of the sources named in task.h to the byte: a blank more or less changes scores
// by some points.
#include "eval/tasks/task.h"

#include "eval/tasks/task_text.h"

#include <stdarg.h>
#include <string.h>

const char *const task_rules_names[] = {
    [TASK_RULES_REFERENCE] = "reference", [TASK_RULES_LM_EVAL] = "lm-eval", NULL};

void task_item_release(TaskItem *item)
{
    for (int i = 0; i < TASK_MAX_CHOICES; i++) {
        bytes_release(&item->contexts[i]);
        bytes_release(&item->continuations[i]);
    }
    *item = (TaskItem){0};
}

// Sets `out` to the texts one behind the other; the last argument is NULL.
static Status put(Bytes *out, ...)
{
    Status status = OK;
    va_list texts;
    const char *text;
    out->size = 0;
    va_start(texts, out);
    while (status == OK && (text = va_arg(texts, const char *)) != NULL)
        status = bytes_append(out, text, (int64_t)strlen(text));
    va_end(texts);
    return status;
}

static void start_item(TaskItem *out, const TaskRow *row, int n_contexts)
{
    out->n_contexts = n_contexts;
    out->n_choices = row->n_choices;
    out->gold = row->gold;
}

// Each choice after a blank, divided by its own characters.
static Status put_choices(TaskItem *out, const TaskRow *row)
{
    start_item(out, row, 1);
    for (int i = 0; i < row->n_choices; i++) {
        TRY(put(&out->continuations[i], " ", row->choices[i], NULL));
        out->divisors[i] = task_text_characters(task_text_span(row->choices[i]));
    }
    return OK;
}

static Status prompt_question(TaskItem *out, const TaskRow *row)
{
    TRY(put(&out->contexts[0], "Question: ", row->question, "\nAnswer:", NULL));
    return put_choices(out, row);
}

static Status prompt_stem(TaskItem *out, const TaskRow *row)
{
    TRY(put(&out->contexts[0], row->question, NULL));
    return put_choices(out, row);
}

// ---- hellaswag -------------------------------------------------------------------------------

// The reference does not strip what it cleans, so that the context keeps a blank at its end, which
// a second one of the continuation follows.
static Status prompt_hellaswag_as(TaskItem *out, const TaskRow *row, bool strips)
{
    Status status;
    Bytes raw = {0};
    TRY_GOTO(release, put(&raw, row->topic, ": ", row->question, " ", NULL));
    TRY_GOTO(release, task_text_append_capitalized(&raw, task_text_span(row->more)));
    if (!strips)
        TRY_GOTO(release, bytes_append(&raw, " ", 1));
    const TextSpan context = {raw.data, raw.size};
    out->contexts[0].size = 0;
    TRY_GOTO(release, task_text_append_clean(&out->contexts[0],
                                             strips ? task_text_strip(context) : context));
    start_item(out, row, 1);
    for (int i = 0; i < row->n_choices; i++) {
        Bytes *continuation = &out->continuations[i];
        const TextSpan ending = task_text_span(row->choices[i]);
        TRY_GOTO(release, put(continuation, " ", NULL));
        TRY_GOTO(release,
                 task_text_append_clean(continuation, strips ? task_text_strip(ending) : ending));
        out->divisors[i] =
            task_text_characters((TextSpan){continuation->data, continuation->size}) - 1;
    }
release:
    bytes_release(&raw);
    return status;
}

static Status prompt_hellaswag_reference(TaskItem *out, const TaskRow *row)
{
    return prompt_hellaswag_as(out, row, false);
}

static Status prompt_hellaswag(TaskItem *out, const TaskRow *row)
{
    return prompt_hellaswag_as(out, row, true);
}

// ---- winogrande ------------------------------------------------------------------------------

static Status prompt_winogrande_reference(TaskItem *out, const TaskRow *row)
{
    const char *gap = strchr(row->question, '_');
    const TextSpan rest = task_text_strip(task_text_span(gap + 1));
    out->contexts[0].size = 0;
    TRY(bytes_append(&out->contexts[0], row->question, gap - row->question));
    start_item(out, row, 1);
    for (int i = 0; i < row->n_choices; i++) {
        Bytes *continuation = &out->continuations[i];
        TRY(put(continuation, row->choices[i], " ", NULL));
        TRY(task_text_append(continuation, rest));
        out->divisors[i] = task_text_characters((TextSpan){continuation->data, continuation->size});
    }
    return OK;
}

// Partial scoring (Trinh and Le, 2018): the same continuation after either context. The harness
// takes the contexts for the choices, whose characters would divide; it reports acc alone.
static Status prompt_winogrande(TaskItem *out, const TaskRow *row)
{
    const char *gap = strchr(row->question, '_');
    const TextSpan rest = task_text_strip(task_text_span(gap + 1));
    start_item(out, row, row->n_choices);
    for (int i = 0; i < row->n_choices; i++) {
        Bytes *context = &out->contexts[i];
        context->size = 0;
        TRY(bytes_append(context, row->question, gap - row->question));
        TRY(task_text_append(context, task_text_span(row->choices[i])));
        TRY(put(&out->continuations[i], " ", NULL));
        TRY(task_text_append(&out->continuations[i], rest));
        out->divisors[i] = task_text_characters((TextSpan){context->data, context->size});
    }
    return OK;
}

// ---- mmlu ------------------------------------------------------------------------------------

// BEFORE subject AFTER, with blanks for the underscores of the subject's name.
static Status put_subject(Bytes *out, const char *before, const TaskRow *row, const char *after)
{
    TRY(put(out, before, row->topic, NULL));
    for (int64_t i = (int64_t)strlen(before); i < out->size; i++)
        if (out->data[i] == '_')
            out->data[i] = ' ';
    return bytes_append(out, after, (int64_t)strlen(after));
}

static Status prompt_mmlu_reference(TaskItem *out, const TaskRow *row)
{
    Bytes *context = &out->contexts[0];
    TRY(put_subject(context, "The following are questions about ", row, ".\nQuestion: "));
    TRY(task_text_append(context, task_text_span(row->question)));
    TRY(task_text_append(context, task_text_span("\nAnswer:")));
    return put_choices(out, row);
}

static Status prompt_mmlu_continuation(TaskItem *out, const TaskRow *row)
{
    Bytes *context = &out->contexts[0];
    TRY(put_subject(context, "The following are questions (with answers) about ", row,
                    ".\n\nQuestion: "));
    TRY(task_text_append(context, task_text_strip(task_text_span(row->question))));
    TRY(task_text_append(context, task_text_span("\nAnswer:")));
    return put_choices(out, row);
}

static Status prompt_mmlu_letters(TaskItem *out, const TaskRow *row)
{
    static const char *const letters[] = {"A", "B", "C", "D"};
    Bytes *context = &out->contexts[0];
    TRY(put_subject(context, "The following are multiple choice questions (with answers) about ",
                    row, ".\n\n"));
    TRY(task_text_append(context, task_text_strip(task_text_span(row->question))));
    for (int i = 0; i < row->n_choices; i++) {
        TRY(task_text_append(context, task_text_span("\n")));
        TRY(task_text_append(context, task_text_span(letters[i])));
        TRY(task_text_append(context, task_text_span(". ")));
        TRY(task_text_append(context, task_text_span(row->choices[i])));
        TRY(put(&out->continuations[i], " ", letters[i], NULL));
        out->divisors[i] = 1;
    }
    TRY(task_text_append(context, task_text_span("\nAnswer:")));
    start_item(out, row, 1);
    return OK;
}

// ---- the table -------------------------------------------------------------------------------

#define REFERENCE .rules = TASK_RULES_REFERENCE, .version = 0, .has_acc_norm = true
#define LM_EVAL   .rules = TASK_RULES_LM_EVAL

static const Task tasks[] = {
    {"hellaswag", REFERENCE, .files = {"hellaswag"}, .member = "hellaswag",
     .read = task_row_hellaswag, .prompt = prompt_hellaswag_reference},
    {"arc_easy", REFERENCE, .files = {"arc_easy"}, .member = "arc", .read = task_row_arc,
     .prompt = prompt_question},
    {"arc_challenge", REFERENCE, .files = {"arc_challenge"}, .member = "arc", .read = task_row_arc,
     .prompt = prompt_question},
    // Its configuration names no split, and the default is validation.
    {"openbookqa", REFERENCE, .files = {"openbookqa_validation", "openbookqa"},
     .member = "openbookqa", .read = task_row_openbookqa, .prompt = prompt_stem},
    {"piqa", REFERENCE, .files = {"piqa"}, .member = "piqa", .read = task_row_piqa,
     .prompt = prompt_question},
    {"winogrande", REFERENCE, .files = {"winogrande"}, .member = "winogrande",
     .read = task_row_winogrande, .prompt = prompt_winogrande_reference},
    {"mmlu", REFERENCE, .files = {"mmlu"}, .member = "mmlu", .read = task_row_mmlu,
     .prompt = prompt_mmlu_reference, .has_groups = true},

    {"hellaswag", LM_EVAL, .files = {"hellaswag"}, .member = "hellaswag",
     .read = task_row_hellaswag, .prompt = prompt_hellaswag, .version = 1, .has_acc_norm = true},
    {"arc_easy", LM_EVAL, .files = {"arc_easy"}, .member = "arc", .read = task_row_arc,
     .prompt = prompt_question, .version = 1, .has_acc_norm = true},
    {"arc_challenge", LM_EVAL, .files = {"arc_challenge"}, .member = "arc", .read = task_row_arc,
     .prompt = prompt_question, .version = 1, .has_acc_norm = true},
    {"openbookqa", LM_EVAL, .files = {"openbookqa"}, .member = "openbookqa",
     .read = task_row_openbookqa, .prompt = prompt_stem, .version = 1, .has_acc_norm = true},
    {"piqa", LM_EVAL, .files = {"piqa"}, .member = "piqa", .read = task_row_piqa,
     .prompt = prompt_question, .version = 1, .has_acc_norm = true},
    {"winogrande", LM_EVAL, .files = {"winogrande"}, .member = "winogrande",
     .read = task_row_winogrande, .prompt = prompt_winogrande, .version = 1},
    {"mmlu", LM_EVAL, .files = {"mmlu"}, .member = "mmlu", .read = task_row_mmlu,
     .prompt = prompt_mmlu_letters, .version = 2, .has_groups = true},
    {"mmlu_continuation", LM_EVAL, .files = {"mmlu"}, .read = task_row_mmlu,
     .prompt = prompt_mmlu_continuation, .version = 2, .has_acc_norm = true, .has_groups = true,
     .is_only_named = true},
};
enum { N_TASKS = sizeof tasks / sizeof *tasks };

const Task *task_at(TaskRules rules, int index)
{
    for (int i = 0; i < N_TASKS; i++)
        if (tasks[i].rules == rules && index-- == 0)
            return &tasks[i];
    return NULL;
}

const Task *task_find(const char *name, TaskRules rules)
{
    for (int i = 0; i < N_TASKS; i++)
        if (tasks[i].rules == rules && strcmp(tasks[i].name, name) == 0)
            return &tasks[i];
    return NULL;
}
