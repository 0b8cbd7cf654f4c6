// code_sim_score(): similarity of the first line of code, by fuzzywuzzy's fuzz.ratio().
#include "eval/longbench/answer_metrics.h"
#include "eval/longbench/matching_blocks.h"
#include "eval/longbench/subsequence.h"

#include <math.h>
#include <stdlib.h>

// How many symbols of a and b are common, as one of the two ratios counts them.
typedef Status (*CommonCount)(int64_t *out, ScoreWork *work, const int32_t *a, int64_t n_a,
                              const int32_t *b, int64_t n_b, int32_t n_symbols);

// The first line with neither a mark of Markdown's code nor a comment; empty where there is none.
static PyText line_of_code(PyText text)
{
    static const int32_t slashes[] = {'/', '/'};
    for (PyText rest = py_text_without_leading(text, '\n'); rest.n > 0;) {
        const PyText line = py_text_take_until(&rest, '\n');
        bool is_comment = py_text_has(line, '`') || py_text_has(line, '#');
        for (int64_t i = 0; i + 1 < line.n && !is_comment; i++)
            is_comment = py_text_equal((PyText){line.codes + i, 2}, (PyText){slashes, 2});
        if (!is_comment)
            return line;
    }
    return (PyText){text.codes, 0};
}

static int compare_codes(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

// Characters of both texts as symbols from 0 to *n_symbols - 1: those of b in order, and one for
// all that b has not.
static Status number_codes(int32_t **a, int32_t **b, int32_t *n_symbols, ScoreWork *work,
                           PyText a_text, PyText b_text)
{
    int32_t *sorted = score_work_take(work, b_text.n, sizeof *sorted), n = 0;
    const PyText texts[] = {a_text, b_text};
    int32_t *symbols[2];
    for (int i = 0; i < 2; i++)
        symbols[i] = score_work_take(work, texts[i].n, sizeof *symbols[i]);
    if (sorted == NULL || symbols[0] == NULL || symbols[1] == NULL)
        return FAILED;
    for (int64_t j = 0; j < b_text.n; j++)
        sorted[j] = b_text.codes[j];
    qsort(sorted, (size_t)b_text.n, sizeof *sorted, compare_codes);
    for (int64_t j = 0; j < b_text.n; j++)
        if (n == 0 || sorted[n - 1] != sorted[j])
            sorted[n++] = sorted[j];
    for (int i = 0; i < 2; i++)
        for (int64_t k = 0; k < texts[i].n; k++) {
            const int32_t *found =
                bsearch(&texts[i].codes[k], sorted, (size_t)n, sizeof *sorted, compare_codes);
            symbols[i][k] = found != NULL ? (int32_t)(found - sorted) : n;
        }
    *a = symbols[0];
    *b = symbols[1];
    *n_symbols = n + 1;
    return OK;
}

static Status lcs_count(int64_t *out, ScoreWork *work, const int32_t *a, int64_t n_a,
                        const int32_t *b, int64_t n_b, int32_t n_symbols)
{
    Subsequence lcs;
    TRY(score_work_spend(work, subsequence_steps(n_a, n_b)));
    TRY(subsequence_create(&lcs, work, n_b, n_symbols));
    subsequence_set(&lcs, b, n_b);
    *out = subsequence_length(&lcs, a, n_a);
    return OK;
}

// fuzz.ratio() / 100, whose ratio is rounded to whole percents, half to even.
static Status edit_sim(double *out, ScoreWork *work, PyText prediction, PyText reference,
                       CommonCount count)
{
    int32_t *a, *b, n_symbols;
    int64_t common;
    const PyText line = line_of_code(prediction);
    if (py_text_equal(line, reference)) {
        *out = 1;
        return OK;
    }
    if (line.n == 0 || reference.n == 0) {
        *out = 0;
        return OK;
    }
    TRY(number_codes(&a, &b, &n_symbols, work, line, reference));
    TRY(count(&common, work, a, line.n, b, reference.n, n_symbols));
    *out = nearbyint(100 * (2.0 * (double)common / (double)(line.n + reference.n))) / 100;
    return OK;
}

Status edit_sim_difflib(double *out, ScoreWork *work, PyText prediction, PyText reference,
                        const AnswerKey *key)
{
    (void)key;
    return edit_sim(out, work, prediction, reference, matching_blocks_count);
}

Status edit_sim_indel(double *out, ScoreWork *work, PyText prediction, PyText reference,
                      const AnswerKey *key)
{
    (void)key;
    return edit_sim(out, work, prediction, reference, lcs_count);
}
