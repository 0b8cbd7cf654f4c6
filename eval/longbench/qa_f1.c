// qa_f1_score(): F1 of two multisets of words, as SQuAD's.
#include "eval/longbench/answer_metrics.h"
#include "eval/longbench/word_ids.h"

#include <string.h>

// string.punctuation: what is neither letter nor digit of ASCII's printable characters.
static bool is_punctuation(int32_t code)
{
    return (code >= '!' && code <= '/') || (code >= ':' && code <= '@') ||
           (code >= '[' && code <= '`') || (code >= '{' && code <= '~');
}

static bool is_article(PyText word)
{
    static const int32_t articles[] = {'a', 'n', 't', 'h', 'e'};
    return py_text_equal(word, (PyText){articles, 1}) ||
           py_text_equal(word, (PyText){articles, 2}) ||
           py_text_equal(word, (PyText){articles + 2, 3});
}

// re.sub(r"\b(a|an|the)\b", " ", text): each run of word characters that is an article. Marks are
// no word characters, so that the run can end within a word of split().
static void blank_articles(int32_t *codes, int64_t n)
{
    for (int64_t first = 0, end; first < n; first = end) {
        end = first + 1;
        if (!py_is_word(codes[first]))
            continue;
        while (end < n && py_is_word(codes[end]))
            end++;
        if (is_article((PyText){codes + first, end - first}))
            for (int64_t i = first; i < end; i++)
                codes[i] = ' ';
    }
}

// normalize_answer(text).split()
static Status normal_words(WordList *out, ScoreWork *work, PyText text)
{
    PyText lower, word;
    TRY(py_text_lower(&lower, work, text));
    int32_t *codes = score_work_take(work, lower.n, sizeof *codes);
    if (codes == NULL)
        return FAILED;
    int64_t n = 0;
    for (int64_t i = 0; i < lower.n; i++)
        if (!is_punctuation(lower.codes[i]))
            codes[n++] = lower.codes[i];
    blank_articles(codes, n);
    TRY(word_list_create(out, work, n / 2 + 1));
    for (PyText rest = {codes, n}; py_text_take_word(&rest, &word);)
        out->words[out->n++] = word;
    return OK;
}

Status qa_f1(double *out, ScoreWork *work, PyText prediction, PyText reference,
             const AnswerKey *key)
{
    (void)key;
    WordList predicted, expected;
    int32_t n_distinct;
    TRY(normal_words(&predicted, work, prediction));
    TRY(normal_words(&expected, work, reference));
    TRY(word_ids_number(&n_distinct, work, &predicted, &expected));
    int64_t *counts = score_work_take(work, n_distinct, sizeof *counts);
    if (counts == NULL)
        return FAILED;
    int64_t n_same = 0;
    for (int64_t i = 0; i < expected.n; i++)
        counts[expected.ids[i]]++;
    for (int64_t i = 0; i < predicted.n; i++)
        if (counts[predicted.ids[i]]-- > 0)
            n_same++;
    if (n_same == 0) {
        *out = 0;
        return OK;
    }
    const double precision = (double)n_same / (double)predicted.n;
    const double recall = (double)n_same / (double)expected.n;
    *out = 2 * precision * recall / (precision + recall);
    return OK;
}
