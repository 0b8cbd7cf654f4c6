// Texts as Python's str has them: code points, with Python's white space, digits, word characters
// and lower case.
//
//     PyText text, word;
//     TRY(py_text_decode(&text, work, (AnswerText){bytes, size}));
//     while (py_text_take_word(&text, &word)) ...              // text.split()
//
// A PyText is a part of an array of code points that the ScoreWork holds; copies and parts are
// free.
#ifndef MHA2MLA_EVAL_LONGBENCH_PY_TEXT_H
#define MHA2MLA_EVAL_LONGBENCH_PY_TEXT_H

#include "eval/longbench/answer_score.h"
#include "eval/longbench/score_work.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct PyText {
    const int32_t *codes; // [n], borrowed
    int64_t n;
} PyText;

// bytes.decode("utf-8", "replace")
Status py_text_decode(PyText *out, ScoreWork *work, AnswerText text);

// text.lower()
Status py_text_lower(PyText *out, ScoreWork *work, PyText text);

bool py_text_equal(PyText a, PyText b);
// <0, 0, >0 as of code points in order, the shorter first.
int py_text_compare(PyText a, PyText b);
bool py_text_has(PyText text, int32_t code);

// text[first:]
PyText py_text_from(PyText text, int64_t first);

// *out = part in text
Status py_text_contains(bool *out, ScoreWork *work, PyText text, PyText part);

// text.lstrip(code)
PyText py_text_without_leading(PyText text, int32_t code);

// Takes what is before the next `code` off *rest, and the code; all of it where there is none.
PyText py_text_take_until(PyText *rest, int32_t code);

// Takes the next word between white space off *rest; false if there is none.
bool py_text_take_word(PyText *rest, PyText *word);

// re's \d and \w.
bool py_is_digit(int32_t code);
bool py_is_word(int32_t code);

#endif
