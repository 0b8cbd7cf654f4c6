// Scores of answers, as LongBench's metrics.py and the packages it calls (rouge 1.0.1, fuzzywuzzy)
// compute them: pure functions of texts.
//
//     const AnswerKey key = {.references = references, .n_references = 2};
//     TRY(answer_score(&score, ANSWER_QA_F1, false, (AnswerText){text, size_bytes}, &key));
//
// Texts are UTF-8 of any size, with NULs if they have some; what is not valid UTF-8 counts as
// U+FFFD. White space, digits, word characters and lower case are Python's.
//
// Time is that of comparing all words (ANSWER_ROUGE_L) or all characters (the two similarities) of
// the prediction with all of a reference, 64 at a time where the metric lets us. A comparison of
// more than ANSWER_MAX_STEPS steps, which take 10 to 40 seconds, is refused. Memory is at most
// 128 MiB and some 100 bytes per character of the two texts; it is given back at the end.
#ifndef MHA2MLA_EVAL_LONGBENCH_ANSWER_SCORE_H
#define MHA2MLA_EVAL_LONGBENCH_ANSWER_SCORE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define ANSWER_MAX_STEPS ((int64_t)1 << 33)

typedef enum AnswerMetric {
    ANSWER_QA_F1,          // F1 of the words, without case, punctuation and articles
    ANSWER_ROUGE_L,        // F of the longest common subsequences of sentences
    ANSWER_EDIT_SIM,       // difflib's ratio of the first line of code, to two digits
    ANSWER_EDIT_SIM_INDEL, // the same with python-Levenshtein's ratio, which fuzzywuzzy takes if it
                           // is installed
    ANSWER_CLASSIFICATION, // 1 / the number of classes that are named, if the right one is
    ANSWER_COUNT,          // share of the numbers that are the right one
    ANSWER_RETRIEVAL,      // the same; the right one is that of "Paragraph N"
} AnswerMetric;

typedef struct AnswerText {
    const char *bytes; // [size_bytes], borrowed
    int64_t size_bytes;
} AnswerText;

// What a prediction is held against.
typedef struct AnswerKey {
    const AnswerText *references; // [n_references], borrowed; the best one counts
    int n_references;
    const AnswerText *classes; // [n_classes], borrowed: ANSWER_CLASSIFICATION's all_classes
    int n_classes;
} AnswerKey;

// The score, 0 to 1; 0 without references. With `first_line_only` the prediction is its first line
// that is not empty, as of the sets trec, triviaqa and samsum. BAD_INPUT: a comparison of more than
// ANSWER_MAX_STEPS steps, ANSWER_RETRIEVAL's reference without a "Paragraph N",
// ANSWER_CLASSIFICATION without classes; FAILED without memory.
Status answer_score(double *out, AnswerMetric metric, bool first_line_only, AnswerText prediction,
                    const AnswerKey *key);

#endif
