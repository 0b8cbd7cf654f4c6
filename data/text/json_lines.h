// The objects of a .jsonl file, one a line, plain, gzip or zstd (data/text/text_stream.h).
//
//     JsonLines lines;
//     json_t *row;
//     TRY(json_lines_open(&lines, "hellaswag.jsonl.gz"));
//     while ((status = json_lines_next(&row, &lines)) == OK && row != NULL) {
//         ... lines.number is its line ...
//         json_decref(row);
//     }
//     json_lines_close(&lines);
//
// Blank lines are skipped, and so is a byte order mark. Memory: two blocks and the longest line.
#ifndef MHA2MLA_DATA_TEXT_JSON_LINES_H
#define MHA2MLA_DATA_TEXT_JSON_LINES_H

#include "base/file.h"
#include "data/text/text_stream.h"

#include <jansson.h>

// What their names end with, closed by NULL: .jsonl, .jsonl.gz, .jsonl.zst.
extern const char *const json_lines_endings[];

typedef struct JsonLines {
    char path[PATH_BYTES];
    int number; // of the last line handed out, from 1
    TextStream stream;
    char *buffer; // owned [capacity]; [start, end) is read and not handed out
    size_t start, end, capacity;
} JsonLines;

// BAD_INPUT if the file is missing or is no regular file.
Status json_lines_open(JsonLines *out, const char *path);

// The next object, which the caller releases; NULL after the last one. BAD_INPUT names file and
// line: not JSON, not an object, or a file that is damaged or cut.
Status json_lines_next(json_t **out, JsonLines *lines);

// The same without parsing: the bytes of the next row; 0 after the last one.
Status json_lines_skip(int64_t *size_bytes, JsonLines *lines);

void json_lines_close(JsonLines *lines); // a zeroed one is allowed

#endif
