#include "eval/tasks/task_row.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// A label as text, and NULL if it is neither a string nor a whole number. pandas writes 2.0 for the
// integers of a column that has gaps.
static const char *label_text(char number[24], const json_t *value)
{
    if (json_is_string(value))
        return json_string_value(value) + strspn(json_string_value(value), " ");
    const double real = json_is_number(value) ? json_number_value(value) : NAN;
    if (!(real == rint(real) && fabs(real) < 1e9))
        return NULL;
    snprintf(number, 24, "%.0f", real);
    return number;
}

static Status refuse_unlabelled(const char *where, const char *key)
{
    return fail(BAD_INPUT,
                "%s: '%s' has no label, as in a test split without answers; take a split that has "
                "them",
                where, key);
}

static Status get_label(const char **out, char number[24], const json_t *row, const char *where,
                        const char *key)
{
    char text[JSON_TEXT_BYTES];
    const json_t *value = json_object_get(row, key);
    if (value == NULL)
        return fail(BAD_INPUT, "%s: the column '%s' is missing", where, key);
    const char *label = label_text(number, value);
    if (json_is_null(value) || (label != NULL && (label[0] == '\0' || strcmp(label, "-1") == 0)))
        return refuse_unlabelled(where, key);
    if (label == NULL)
        return fail(BAD_INPUT, "%s: '%s' is no label: %s", where, key, json_describe(text, value));
    *out = label;
    return OK;
}

// The choice that a number names, the first of which is `first`.
static Status get_index(int *out, const json_t *row, const char *where, const char *key, int first,
                        int n_choices)
{
    char number[24], *end;
    const char *label;
    TRY(get_label(&label, number, row, where, key));
    const long index = strtol(label, &end, 10) - first;
    if (*end != '\0' || index < 0 || index >= n_choices)
        return fail(BAD_INPUT, "%s: '%s' is %.40s, allowed are %d to %d", where, key, label, first,
                    first + n_choices - 1);
    *out = (int)index;
    return OK;
}

static Status get_text(const char **out, const json_t *row, const char *where, const char *key)
{
    if (json_object_get(row, key) == NULL)
        return fail(BAD_INPUT, "%s: the column '%s' is missing", where, key);
    return json_get_string(out, row, where, key);
}

static Status get_choices(TaskRow *out, const json_t *texts, const char *where, const char *key)
{
    const size_t n = json_array_size(texts);
    if (!json_is_array(texts))
        return fail(BAD_INPUT, "%s: the column '%s' is missing or is not a list", where, key);
    if (n < 2 || n > TASK_MAX_CHOICES)
        return fail(BAD_INPUT, "%s: '%s' has %zu choices, allowed are 2 to %d", where, key, n,
                    TASK_MAX_CHOICES);
    for (size_t i = 0; i < n; i++) {
        out->choices[i] = json_string_value(json_array_get(texts, i));
        if (out->choices[i] == NULL)
            return fail(BAD_INPUT, "%s: item %zu of '%s' is not a string", where, i + 1, key);
    }
    out->n_choices = (int)n;
    return OK;
}

static Status get_two_choices(TaskRow *out, const json_t *row, const char *where,
                              const char *const keys[2])
{
    out->n_choices = 2;
    TRY(get_text(&out->choices[0], row, where, keys[0]));
    return get_text(&out->choices[1], row, where, keys[1]);
}

// choices {text[], label[]} and the label of the right one in answerKey.
static Status get_labelled_choices(TaskRow *out, const json_t *row, const char *where)
{
    char number[24], other[24];
    const char *answer;
    const json_t *choices = json_object_get(row, "choices");
    if (!json_is_object(choices))
        return fail(BAD_INPUT, "%s: the column 'choices' is missing or is not an object", where);
    const json_t *labels = json_object_get(choices, "label");
    TRY(get_choices(out, json_object_get(choices, "text"), where, "choices.text"));
    if (json_array_size(labels) != (size_t)out->n_choices)
        return fail(BAD_INPUT, "%s: 'choices.label' has not as many items as 'choices.text', %d",
                    where, out->n_choices);
    TRY(get_label(&answer, number, row, where, "answerKey"));
    for (int i = 0; i < out->n_choices; i++) {
        const char *label = label_text(other, json_array_get(labels, (size_t)i));
        if (label != NULL && strcmp(label, answer) == 0) {
            out->gold = i;
            return OK;
        }
    }
    return fail(BAD_INPUT, "%s: 'answerKey' is %.40s, which is not in 'choices.label'", where,
                answer);
}

Status task_row_hellaswag(TaskRow *out, const json_t *row, const char *where)
{
    *out = (TaskRow){0};
    TRY(get_text(&out->topic, row, where, "activity_label"));
    TRY(get_text(&out->question, row, where, "ctx_a"));
    TRY(get_text(&out->more, row, where, "ctx_b"));
    TRY(get_choices(out, json_object_get(row, "endings"), where, "endings"));
    return get_index(&out->gold, row, where, "label", 0, out->n_choices);
}

Status task_row_arc(TaskRow *out, const json_t *row, const char *where)
{
    *out = (TaskRow){0};
    TRY(get_text(&out->question, row, where, "question"));
    return get_labelled_choices(out, row, where);
}

Status task_row_openbookqa(TaskRow *out, const json_t *row, const char *where)
{
    *out = (TaskRow){0};
    TRY(get_text(&out->question, row, where, "question_stem"));
    return get_labelled_choices(out, row, where);
}

Status task_row_piqa(TaskRow *out, const json_t *row, const char *where)
{
    *out = (TaskRow){0};
    TRY(get_text(&out->question, row, where, "goal"));
    TRY(get_two_choices(out, row, where, (const char *const[]){"sol1", "sol2"}));
    return get_index(&out->gold, row, where, "label", 0, 2);
}

Status task_row_winogrande(TaskRow *out, const json_t *row, const char *where)
{
    *out = (TaskRow){0};
    TRY(get_text(&out->question, row, where, "sentence"));
    if (strchr(out->question, '_') == NULL)
        return fail(BAD_INPUT, "%s: 'sentence' has no '_' where an option belongs", where);
    TRY(get_two_choices(out, row, where, (const char *const[]){"option1", "option2"}));
    return get_index(&out->gold, row, where, "answer", 1, 2);
}

// The letters of lm-eval's prompt are four.
Status task_row_mmlu(TaskRow *out, const json_t *row, const char *where)
{
    *out = (TaskRow){0};
    TRY(get_text(&out->question, row, where, "question"));
    TRY(get_text(&out->topic, row, where, "subject"));
    TRY(get_choices(out, json_object_get(row, "choices"), where, "choices"));
    if (out->n_choices != 4)
        return fail(BAD_INPUT, "%s: 'choices' has %d choices, allowed are 4", where,
                    out->n_choices);
    return get_index(&out->gold, row, where, "answer", 0, 4);
}
