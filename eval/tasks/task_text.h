// Text as Python's str methods treat it, on UTF-8 that is valid: the prompts of the tasks were made
// with them.
//
//     TextSpan span = task_text_strip(task_text_span(" a b\n"));            // "a b"
//     TRY(task_text_append_clean(&prompt, span));                          // HellaSwag's cleaning
#ifndef MHA2MLA_EVAL_TASKS_TASK_TEXT_H
#define MHA2MLA_EVAL_TASKS_TASK_TEXT_H

#include "data/tokenizer/tokenizer_text.h"

typedef struct TextSpan {
    const char *text; // borrowed [size]
    int64_t size;
} TextSpan;

TextSpan task_text_span(const char *text);

// str.strip() and str.rstrip(): what str.isspace() holds for goes.
TextSpan task_text_strip(TextSpan span);
TextSpan task_text_strip_end(TextSpan span);

// len(): the number of code points.
int64_t task_text_characters(TextSpan span);

Status task_text_append(Bytes *out, TextSpan span);

// str.capitalize(): the first character in title case, all others in lower case (simple mappings of
// Unicode, one character for one).
Status task_text_append_capitalized(Bytes *out, TextSpan span);

// The cleaning of WikiHow's marks in HellaSwag: " [title]" becomes ". ", what stands in brackets on
// one line is deleted, and two blanks become one, once from left to right.
Status task_text_append_clean(Bytes *out, TextSpan span);

#endif
