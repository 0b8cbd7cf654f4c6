// One line of a .jsonl file as JSON, read as Python reads it where that does not concern the text:
// what stands beside the text must not cost the document.
//
//     TextLine parsed = {0};
//     TRY(text_line_parse(&parsed, line, size, "text"));
//     if (parsed.object == NULL)
//         ... not JSON: parsed.error ...
//     json_decref(parsed.object);
//
// Beyond JSON are taken: NaN, Infinity and -Infinity, numbers of any size (1e999), and halves of
// surrogate pairs ("\ud83d") in other strings than the text. No character is the half of a pair,
// so a text with one is none.
#ifndef MHA2MLA_DATA_TEXT_TEXT_LINE_H
#define MHA2MLA_DATA_TEXT_TEXT_LINE_H

#include "base/status.h"

#include <jansson.h>

typedef struct TextLine {
    json_t *object;     // owned by the caller; NULL: not JSON, which `error` explains
    json_error_t error; // its column counts in the line
    bool is_text_cut;   // the string in the field has a half of a surrogate pair
} TextLine;

// `line` [size_bytes] may be changed. FAILED without memory.
Status text_line_parse(TextLine *out, char *line, int64_t size_bytes, const char *field);

#endif
