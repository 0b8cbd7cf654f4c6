// Properties of characters are utf8proc's categories; where Python's definitions say something
// else, they are written out here. Compared with Python 3.11 on all characters that both know.
#include "eval/longbench/py_text.h"

#include "base/intmath.h"
#include "data/tokenizer/tokenizer_text.h"

#include <string.h>
#include <utf8proc.h>

Status py_text_decode(PyText *out, ScoreWork *work, AnswerText text)
{
    int32_t *codes = score_work_take(work, text.size_bytes, sizeof *codes);
    if (codes == NULL)
        return FAILED;
    int64_t n = 0;
    for (int64_t at = 0; at < text.size_bytes;) {
        const int length = utf8_check(text.bytes + at, text.size_bytes - at);
        codes[n++] = length > 0 ? (int32_t)utf8_code(text.bytes + at) : 0xFFFD;
        at += length > 0 ? length : -length;
    }
    *out = (PyText){codes, n};
    return OK;
}

// Between U+001C and U+001F, which Unicode's White_Space leaves out, as well.
static bool py_is_space(int32_t code)
{
    return (code >= 0x1C && code <= 0x1F) || utf8_is_space((uint32_t)code);
}

bool py_is_digit(int32_t code)
{
    return code < 0x80 ? code >= '0' && code <= '9'
                       : utf8proc_category(code) == UTF8PROC_CATEGORY_ND;
}

// str.isalnum() or "_": letters and what has a numeric value; marks are none.
bool py_is_word(int32_t code)
{
    const utf8proc_category_t category = utf8proc_category(code);
    return code == '_' || (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
           (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

// Unicode's Case_Ignorable: the categories and Word_Break's MidLetter, MidNumLet, Single_Quote.
static bool is_case_ignorable(int32_t code)
{
    static const int32_t marks[] = {'\'',   '.',    ':',    0xB7,   0x387,  0x55F,
                                    0x5F4,  0x2018, 0x2019, 0x2024, 0x2027, 0xFE13,
                                    0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        break;
    }
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        if (code == marks[i])
            return true;
    return false;
}

// Unicode's Cased, of characters that are not Case_Ignorable: the ordinal indicators, Roman
// numerals and letters in circles and squares have no category that says so.
static bool is_cased(int32_t code)
{
    static const struct {
        int32_t first, last;
    } others[] = {{0xAA, 0xAA},       {0xBA, 0xBA},       {0x2160, 0x217F},  {0x24B6, 0x24E9},
                  {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
    const utf8proc_category_t category = utf8proc_category(code);
    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LT)
        return true;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (code >= others[i].first && code <= others[i].last)
            return true;
    return false;
}

// Whether the next character that is not Case_Ignorable, from `at` in steps of 1 or -1, is cased.
static bool is_next_cased(PyText text, int64_t at, int step)
{
    while (at >= 0 && at < text.n && is_case_ignorable(text.codes[at]))
        at += step;
    return at >= 0 && at < text.n && is_cased(text.codes[at]);
}

// A capital sigma at the end of a word has a lower case of its own, and U+0130 becomes two
// characters; else a character's lower case is one that depends on it alone.
Status py_text_lower(PyText *out, ScoreWork *work, PyText text)
{
    int32_t *codes = score_work_take(work, 2 * text.n, sizeof *codes);
    if (codes == NULL)
        return FAILED;
    int64_t n = 0;
    for (int64_t i = 0; i < text.n; i++) {
        const int32_t code = text.codes[i];
        if (code == 0x3A3) {
            const bool is_last = is_next_cased(text, i - 1, -1) && !is_next_cased(text, i + 1, 1);
            codes[n++] = is_last ? 0x3C2 : 0x3C3;
        } else if (code == 0x130) {
            codes[n++] = 'i';
            codes[n++] = 0x307;
        } else {
            codes[n++] = utf8proc_tolower(code);
        }
    }
    *out = (PyText){codes, n};
    return OK;
}

bool py_text_equal(PyText a, PyText b)
{
    return a.n == b.n && memcmp(a.codes, b.codes, (size_t)a.n * sizeof *a.codes) == 0;
}

int py_text_compare(PyText a, PyText b)
{
    const int64_t n = min_int64(a.n, b.n);
    for (int64_t i = 0; i < n; i++)
        if (a.codes[i] != b.codes[i])
            return a.codes[i] < b.codes[i] ? -1 : 1;
    return (a.n > b.n) - (a.n < b.n);
}

bool py_text_has(PyText text, int32_t code)
{
    for (int64_t i = 0; i < text.n; i++)
        if (text.codes[i] == code)
            return true;
    return false;
}

PyText py_text_from(PyText text, int64_t first)
{
    return (PyText){text.codes + first, text.n - first};
}

Status py_text_contains(bool *out, ScoreWork *work, PyText text, PyText part)
{
    *out = false;
    if (part.n > text.n)
        return OK;
    TRY(score_work_spend(work, (text.n - part.n + 1) * (part.n + 1)));
    for (int64_t at = 0; at <= text.n - part.n && !*out; at++)
        *out = py_text_equal((PyText){text.codes + at, part.n}, part);
    return OK;
}

PyText py_text_without_leading(PyText text, int32_t code)
{
    int64_t n = 0;
    while (n < text.n && text.codes[n] == code)
        n++;
    return py_text_from(text, n);
}

PyText py_text_take_until(PyText *rest, int32_t code)
{
    int64_t n = 0;
    while (n < rest->n && rest->codes[n] != code)
        n++;
    const PyText taken = {rest->codes, n};
    *rest = py_text_from(*rest, n < rest->n ? n + 1 : n);
    return taken;
}

bool py_text_take_word(PyText *rest, PyText *word)
{
    int64_t first = 0;
    while (first < rest->n && py_is_space(rest->codes[first]))
        first++;
    int64_t end = first;
    while (end < rest->n && !py_is_space(rest->codes[end]))
        end++;
    *word = (PyText){rest->codes + first, end - first};
    *rest = py_text_from(*rest, end);
    return word->n > 0;
}
