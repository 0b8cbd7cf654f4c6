#include "eval/longbench/word_ids.h"

#include <stdlib.h>

typedef struct NumberedWord {
    PyText text;
    int32_t *id;
} NumberedWord;

static int compare_words(const void *a, const void *b)
{
    return py_text_compare(((const NumberedWord *)a)->text, ((const NumberedWord *)b)->text);
}

Status word_list_create(WordList *out, ScoreWork *work, int64_t capacity)
{
    WordList list = {.words = score_work_take(work, capacity, sizeof *list.words)};
    if (list.words == NULL)
        return FAILED;
    list.ids = score_work_take(work, capacity, sizeof *list.ids);
    if (list.ids == NULL)
        return FAILED;
    *out = list;
    return OK;
}

Status word_ids_number(int32_t *n_distinct, ScoreWork *work, WordList *a, WordList *b)
{
    NumberedWord *sorted = score_work_take(work, a->n + b->n, sizeof *sorted);
    if (sorted == NULL)
        return FAILED;
    for (int64_t i = 0; i < a->n; i++)
        sorted[i] = (NumberedWord){a->words[i], a->ids + i};
    for (int64_t i = 0; i < b->n; i++)
        sorted[a->n + i] = (NumberedWord){b->words[i], b->ids + i};
    qsort(sorted, (size_t)(a->n + b->n), sizeof *sorted, compare_words);
    int32_t id = -1;
    for (int64_t i = 0; i < a->n + b->n; i++) {
        if (i == 0 || compare_words(sorted + i - 1, sorted + i) != 0)
            id++;
        *sorted[i].id = id;
    }
    *n_distinct = id + 1;
    return OK;
}
