// classification_score(), count_score() and retrieval_score(): what of a list is in the
// prediction.
#include "eval/longbench/answer_metrics.h"

// list.remove(item): the first that is equal. Returns the new length.
static int remove_first(PyText *list, int n, PyText item)
{
    int at = 0;
    while (!py_text_equal(list[at], item))
        at++;
    for (; at + 1 < n; at++)
        list[at] = list[at + 1];
    return n - 1;
}

// Classes that are named only as a part of the right one are dropped. The original does so while it
// walks the list, so the class behind a dropped one stays unseen, and so it does here.
static Status drop_parts(PyText *named, int *n, ScoreWork *work, PyText reference)
{
    for (int i = 0; i < *n; i++) {
        bool is_part;
        TRY(py_text_contains(&is_part, work, reference, named[i]));
        if (is_part && !py_text_equal(named[i], reference))
            *n = remove_first(named, *n, named[i]);
    }
    return OK;
}

Status classification(double *out, ScoreWork *work, PyText prediction, PyText reference,
                      const AnswerKey *key)
{
    if (key->n_classes == 0)
        return fail(BAD_INPUT, "no all_classes, of which the answer is one");
    PyText *named = score_work_take(work, key->n_classes, sizeof *named);
    if (named == NULL)
        return FAILED;
    int n = 0;
    for (int i = 0; i < key->n_classes; i++) {
        bool is_named;
        TRY(py_text_decode(&named[n], work, key->classes[i]));
        TRY(py_text_contains(&is_named, work, prediction, named[n]));
        n += is_named;
    }
    TRY(drop_parts(named, &n, work, reference));
    bool is_right = false;
    for (int i = 0; i < n; i++)
        is_right = is_right || py_text_equal(named[i], reference);
    *out = is_right ? 1.0 / n : 0;
    return OK;
}

// Takes the next of re.findall(r"\d+", *rest) off it; false if there is none.
static bool take_number(PyText *rest, PyText *number)
{
    int64_t first = 0;
    while (first < rest->n && !py_is_digit(rest->codes[first]))
        first++;
    int64_t end = first;
    while (end < rest->n && py_is_digit(rest->codes[end]))
        end++;
    *number = (PyText){rest->codes + first, end - first};
    *rest = py_text_from(*rest, end);
    return number->n > 0;
}

static double share_of_numbers(PyText prediction, PyText expected)
{
    int64_t n = 0, n_right = 0;
    for (PyText number; take_number(&prediction, &number); n++)
        n_right += py_text_equal(number, expected);
    return n == 0 ? 0 : (double)n_right / (double)n;
}

Status number_count(double *out, ScoreWork *work, PyText prediction, PyText reference,
                    const AnswerKey *key)
{
    (void)work;
    (void)key;
    *out = share_of_numbers(prediction, reference);
    return OK;
}

// Against the number of the reference's first "Paragraph N".
Status paragraph_retrieval(double *out, ScoreWork *work, PyText prediction, PyText reference,
                           const AnswerKey *key)
{
    (void)work;
    (void)key;
    static const int32_t codes[] = {'P', 'a', 'r', 'a', 'g', 'r', 'a', 'p', 'h', ' '};
    const PyText name = {codes, sizeof codes / sizeof codes[0]};
    for (int64_t at = 0; at + name.n < reference.n; at++) {
        PyText number, rest = py_text_from(reference, at + name.n);
        if (!py_text_equal((PyText){reference.codes + at, name.n}, name) ||
            !py_is_digit(rest.codes[0]))
            continue;
        take_number(&rest, &number);
        *out = share_of_numbers(prediction, number);
        return OK;
    }
    return fail(BAD_INPUT, "the answer names no \"Paragraph N\"");
}
