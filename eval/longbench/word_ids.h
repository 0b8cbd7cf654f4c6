// Words as numbers: equal words have the same.
//
//     WordList a, b;
//     TRY(word_list_create(&a, work, capacity));
//     a.words[a.n++] = word; ...
//     TRY(word_ids_number(&n_distinct, work, &a, &b)); // a.ids and b.ids
#ifndef MHA2MLA_EVAL_LONGBENCH_WORD_IDS_H
#define MHA2MLA_EVAL_LONGBENCH_WORD_IDS_H

#include "eval/longbench/py_text.h"

typedef struct WordList {
    PyText *words; // [n]
    int32_t *ids;  // [n]
    int64_t n;
} WordList;

// A list with room for `capacity` words and their ids; n = 0.
Status word_list_create(WordList *out, ScoreWork *work, int64_t capacity);

// Gives the words of both lists ids from 0 to *n_distinct - 1.
Status word_ids_number(int32_t *n_distinct, ScoreWork *work, WordList *a, WordList *b);

#endif
