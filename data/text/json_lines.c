#include "data/text/json_lines.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

const char *const json_lines_endings[] = {".jsonl", ".jsonl.gz", ".jsonl.zst", NULL};

Status json_lines_open(JsonLines *out, const char *path)
{
    int fd;
    if (strlen(path) >= PATH_BYTES)
        return fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
    TRY(file_open(&fd, path));
    *out = (JsonLines){0};
    strcpy(out->path, path);
    return text_stream_open(&out->stream, fd, path, NULL);
}

void json_lines_close(JsonLines *lines)
{
    text_stream_close(&lines->stream);
    free(lines->buffer);
    *lines = (JsonLines){0};
}

// One more block behind what is read; the handed-out bytes before it go.
static Status read_block(JsonLines *lines)
{
    const size_t left = lines->end - lines->start;
    if (lines->start > 0)
        memmove(lines->buffer, lines->buffer + lines->start, left);
    lines->start = 0;
    lines->end = left;
    if (lines->capacity - left < TEXT_BLOCK_BYTES) {
        const size_t capacity = 2 * lines->capacity + TEXT_BLOCK_BYTES;
        char *buffer = realloc(lines->buffer, capacity);
        if (buffer == NULL)
            return fail(FAILED, "%s:%d: no memory for a line of %zu bytes", lines->path,
                        lines->number + 1, capacity);
        lines->buffer = buffer;
        lines->capacity = capacity;
    }
    lines->end += text_stream_read(&lines->stream, lines->buffer + left, TEXT_BLOCK_BYTES);
    if (lines->stream.damage[0] != '\0')
        return fail(BAD_INPUT, "%s: %s", lines->path, lines->stream.damage);
    return OK;
}

// The next line [*size] without its end, NULL after the last one.
static Status next_line(const char **out, size_t *size, JsonLines *lines)
{
    size_t looked = 0;
    for (;;) {
        const size_t n = lines->end - lines->start - looked;
        const char *line = lines->buffer + lines->start;
        const char *line_end = n > 0 ? memchr(line + looked, '\n', n) : NULL;
        if (line_end == NULL && !lines->stream.at_end) {
            looked += n;
            TRY(read_block(lines));
            continue;
        }
        *size = line_end != NULL ? (size_t)(line_end - line) : looked + n;
        *out = line_end == NULL && *size == 0 ? NULL : line;
        lines->start += *size + (line_end != NULL);
        lines->number += *out != NULL;
        return OK;
    }
}

// The next line that is not blank, without a byte order mark.
static Status next_row(const char **out, size_t *out_size, JsonLines *lines)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    const char *line;
    size_t size;
    for (;;) {
        TRY(next_line(&line, &size, lines));
        if (line != NULL && lines->number == 1 && size >= 3 &&
            memcmp(line, byte_order_mark, 3) == 0) {
            line += 3;
            size -= 3;
        }
        size_t n_blank = 0;
        while (n_blank < size &&
               (line[n_blank] == ' ' || line[n_blank] == '\t' || line[n_blank] == '\r'))
            n_blank++;
        if (line == NULL || n_blank < size)
            break;
    }
    *out = line;
    *out_size = size;
    return OK;
}

Status json_lines_next(json_t **out, JsonLines *lines)
{
    const char *line;
    size_t size;
    TRY(next_row(&line, &size, lines));
    if (line == NULL) {
        *out = NULL;
        return OK;
    }
    json_t *row;
    TRY(json_parse_line(&row, line, (int64_t)size, lines->path, lines->number));
    if (!json_is_object(row)) {
        json_decref(row);
        return fail(BAD_INPUT, "%s:%d: is not a JSON object; a row is {\"key\": value, ...}",
                    lines->path, lines->number);
    }
    *out = row;
    return OK;
}

Status json_lines_skip(int64_t *size_bytes, JsonLines *lines)
{
    const char *line;
    size_t size;
    TRY(next_row(&line, &size, lines));
    *size_bytes = line != NULL ? (int64_t)size : 0;
    return OK;
}
