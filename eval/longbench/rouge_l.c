// rouge_score(): the summary level of ROUGE-L as the package `rouge` 1.0.1 has it.
//
// It counts words that are in a common subsequence of any two sentences once, and divides by the
// numbers of distinct words. The original adds, for each sentence of the reference, how much the
// set of those words has grown, which in the end is the size of the set. Its trace is recursive, so
// that long sentences end in a RecursionError and a score of 0; here they have the score that the
// rule gives.
#include "eval/longbench/answer_metrics.h"
#include "eval/longbench/subsequence.h"
#include "eval/longbench/word_ids.h"

// Words of a text and where its sentences begin.
typedef struct Sentences {
    WordList words;
    int64_t *first; // [n + 1] first word of each
    int64_t n;
} Sentences;

// [" ".join(s.split()).split(" ") for s in text.split(".") if len(s) > 0]: a sentence of white
// space alone is one empty word.
static Status split_sentences(Sentences *out, ScoreWork *work, PyText text)
{
    Sentences sentences = {.first = score_work_take(work, text.n + 2, sizeof(int64_t))};
    if (sentences.first == NULL)
        return FAILED;
    TRY(word_list_create(&sentences.words, work, text.n));
    WordList *words = &sentences.words;
    while (text.n > 0) {
        PyText word, sentence = py_text_take_until(&text, '.');
        if (sentence.n == 0)
            continue;
        const int64_t first = words->n;
        while (py_text_take_word(&sentence, &word))
            words->words[words->n++] = word;
        if (words->n == first)
            words->words[words->n++] = (PyText){sentence.codes, 0};
        sentences.first[++sentences.n] = words->n;
    }
    *out = sentences;
    return OK;
}

// Steps of all pairs of sentences, known before the first.
static Status spend_pairs(ScoreWork *work, const Sentences *reference, const Sentences *hypothesis)
{
    for (int64_t h = 0; h < hypothesis->n; h++) {
        const int64_t n = hypothesis->first[h + 1] - hypothesis->first[h];
        TRY(score_work_spend(work, subsequence_steps(reference->words.n, n) +
                                       (reference->n - 1) * subsequence_steps(0, n)));
    }
    return OK;
}

static Status mark_union(bool *is_in, ScoreWork *work, const Sentences *reference,
                         const Sentences *hypothesis, int32_t n_distinct)
{
    Subsequence lcs;
    TRY(spend_pairs(work, reference, hypothesis));
    TRY(subsequence_create(&lcs, work, hypothesis->words.n, n_distinct));
    for (int64_t h = 0; h < hypothesis->n; h++) {
        const int64_t first = hypothesis->first[h];
        subsequence_set(&lcs, hypothesis->words.ids + first, hypothesis->first[h + 1] - first);
        for (int64_t r = 0; r < reference->n; r++) {
            const int64_t begin = reference->first[r];
            TRY(subsequence_mark(is_in, &lcs, work, reference->words.ids + begin,
                                 reference->first[r + 1] - begin));
        }
    }
    return OK;
}

static Status count_distinct(int64_t *out, ScoreWork *work, const WordList *words,
                             int32_t n_distinct)
{
    bool *is_seen = score_work_take(work, n_distinct, sizeof *is_seen);
    if (is_seen == NULL)
        return FAILED;
    *out = 0;
    for (int64_t i = 0; i < words->n; i++) {
        *out += !is_seen[words->ids[i]];
        is_seen[words->ids[i]] = true;
    }
    return OK;
}

Status rouge_l(double *out, ScoreWork *work, PyText prediction, PyText reference,
               const AnswerKey *key)
{
    (void)key;
    Sentences expected, predicted;
    int32_t n_distinct;
    int64_t n_common = 0, n_expected, n_predicted;
    TRY(split_sentences(&expected, work, reference));
    TRY(split_sentences(&predicted, work, prediction));
    if (expected.n == 0 || predicted.n == 0) {
        *out = 0;
        return OK;
    }
    TRY(word_ids_number(&n_distinct, work, &expected.words, &predicted.words));
    bool *is_in = score_work_take(work, n_distinct, sizeof *is_in);
    if (is_in == NULL)
        return FAILED;
    TRY(mark_union(is_in, work, &expected, &predicted, n_distinct));
    for (int32_t id = 0; id < n_distinct; id++)
        n_common += is_in[id];
    TRY(count_distinct(&n_expected, work, &expected.words, n_distinct));
    TRY(count_distinct(&n_predicted, work, &predicted.words, n_distinct));
    const double recall = (double)n_common / (double)n_expected;
    const double precision = (double)n_common / (double)n_predicted;
    *out = 2 * (precision * recall / (precision + recall + 1e-8));
    return OK;
}
