// One buffer slides over the text: blocks are appended at its end, documents are handed out from
// its start, and it grows only when a single document fills it.
//
//     buffer: | handed out | start ... read, not handed out ... end | free ... capacity |
#define _GNU_SOURCE // memmem
#include "data/text/text.h"

#include "base/file.h"
#include "base/file_kind.h"
#include "base/log.h"
#include "data/text/text_line.h"
#include "data/text/text_stream.h"
#include "data/tokenizer/tokenizer_text.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A web crawl may have millions of faults: the first few are shown, all are counted.
enum { BLOCK_BYTES = TEXT_BLOCK_BYTES, FAULTS_SHOWN = 10 };

struct TextReader {
    char path[PATH_BYTES]; // as errors name it
    bool is_jsonl;
    const char *field;
    const char *separator;             // NULL: none
    TextSkips *skipped;                // borrowed; NULL: faults are errors
    const volatile sig_atomic_t *stop; // borrowed; may be NULL
    TextFault fault;                   // the last one
    TextStream stream;
    bool at_end;         // the file is read; the buffer may hold more
    bool is_damaged;     // at_end comes from damage: the last piece in the buffer is not whole
    bool is_told;        // the stream's damage is; pieces before the damage come first
    int64_t n_lines;     // handed out, .jsonl only
    int64_t buffer_from; // the place in the text of the buffer's first byte
    json_t *object;      // owns the last .jsonl document's text
    // The bytes [start, end) of the buffer are read and not yet handed out.
    char *buffer;
    size_t capacity, start, end;
};

static bool is_stopped(const TextReader *reader)
{
    return reader->stop != NULL && *reader->stop != 0;
}

static Status open_stream(TextReader *reader, const char *path)
{
    int fd = -1;
    TRY(text_source_open(&fd, path, reader->stop));
    return text_stream_open(&reader->stream, fd, reader->path, reader->stop);
}

Status text_open(TextReader **out, const char *path, const TextOptions *options)
{
    bool is_jsonl;
    TRY(text_source_is_jsonl(&is_jsonl, path, options->format));
    TextReader *reader = calloc(1, sizeof *reader);
    if (reader == NULL)
        return fail(FAILED, "%s: out of memory", path);
    strcpy(reader->path, text_source_name(path));
    reader->is_jsonl = is_jsonl;
    reader->field = options->field != NULL ? options->field : "text";
    if (options->separator != NULL && options->separator[0] != '\0')
        reader->separator = options->separator;
    reader->skipped = options->skipped;
    reader->stop = options->stop;
    const Status status = open_stream(reader, path);
    if (status != OK) {
        text_close(reader);
        return status;
    }
    *out = reader;
    return OK;
}

// Puts the file, and for .jsonl the line being read, before a reason.
#define fail_at(reader, fault, ...)                                                                \
    (fail_write(__VA_ARGS__), fail_write_place((reader), (fault)), BAD_INPUT)

// fail_at() is an expression of status BAD_INPUT, as fail() is; the kind of fault is kept for
// skip_fault().
static void fail_write_place(TextReader *reader, TextFault fault)
{
    reader->fault = fault;
    if (reader->is_jsonl)
        fail_write_prefix("%s:%lld", reader->path, (long long)reader->n_lines + 1);
    else
        fail_write_prefix("%s", reader->path);
}

// OK if `status` is a fault that is skipped: it is counted, and shown if it is among the first.
static Status skip_fault(TextReader *reader, Status status)
{
    if (status != BAD_INPUT || reader->skipped == NULL)
        return status;
    int64_t before = 0;
    for (int f = 0; f < TEXT_N_FAULTS; f++)
        before += reader->skipped->counts[f];
    if (before < FAULTS_SHOWN)
        log_warn("%s: %s", reader->fault == TEXT_DAMAGED ? "rest of a file skipped" : "skipped",
                 fail_text());
    if (before + 1 == FAULTS_SHOWN)
        log_warn("further faults are skipped without a line each");
    reader->skipped->counts[reader->fault]++;
    return OK;
}

// Makes sure that one more block fits behind `end`: the text that was handed out is dropped first.
static Status reserve_block(TextReader *reader)
{
    if (reader->start > 0) {
        memmove(reader->buffer, reader->buffer + reader->start, reader->end - reader->start);
        reader->end -= reader->start;
        reader->buffer_from += (int64_t)reader->start;
        reader->start = 0;
    }
    // A bound, so that a binary file named .txt, or a .jsonl without line ends, does not fill the
    // memory.
    if (reader->end > TEXT_MAX_BYTES)
        return fail_at(reader, TEXT_DAMAGED, "a document longer than %d bytes%s", TEXT_MAX_BYTES,
                       reader->is_jsonl ? ""
                                        : "; name what separates its documents by --separator");
    if (reader->capacity - reader->end >= BLOCK_BYTES)
        return OK;
    // By half, so that the bytes copied for a long document are a constant factor of its length.
    size_t capacity = reader->capacity + reader->capacity / 2 + 2 * BLOCK_BYTES;
    char *buffer = realloc(reader->buffer, capacity);
    if (buffer == NULL)
        return fail(FAILED, "%s: out of memory for a document of more than %zu bytes", reader->path,
                    reader->end);
    reader->buffer = buffer;
    reader->capacity = capacity;
    return OK;
}

// Half of the bytes of ASCII in UTF-16 are 0, which UTF-8 has for U+0000 alone: RFC 4627, 3.
static bool is_utf16(const char *bytes, size_t size_bytes)
{
    if (size_bytes < 4)
        return false;
    const bool is_big = bytes[0] == 0 && bytes[1] != 0 && bytes[2] == 0 && bytes[3] != 0;
    return is_big || (bytes[0] != 0 && bytes[1] == 0 && bytes[2] != 0 && bytes[3] == 0);
}

// Three of four are 0 in UTF-32.
static bool is_utf32(const char *bytes, size_t size_bytes)
{
    static const char zeros[3];
    return size_bytes >= 4 && ((memcmp(bytes, zeros, 3) == 0 && bytes[3] != 0) ||
                               (bytes[0] != 0 && memcmp(bytes + 1, zeros, 3) == 0));
}

// What the first block tells: the byte order mark is left out, and a file of another kind is not
// read on. In a .txt a web page may be what is wanted.
static Status check_start(TextReader *reader)
{
    if (reader->end >= 3 && memcmp(reader->buffer, "\xef\xbb\xbf", 3) == 0)
        reader->start = 3;
    const char *kind = file_kind_of_bytes(reader->buffer, (int64_t)reader->end);
    if (kind == NULL && is_utf16(reader->buffer, reader->end))
        kind = FILE_KIND_UTF16;
    if (kind == NULL && is_utf32(reader->buffer, reader->end))
        kind = "UTF-32 text; convert it with iconv -f UTF-32 -t UTF-8";
    if (kind == NULL || (!reader->is_jsonl && reader->buffer[0] == '<'))
        return OK;
    reader->at_end = reader->is_damaged = reader->is_told = true;
    reader->start = reader->end;
    return skip_fault(reader, fail_at(reader, TEXT_DAMAGED, "is %s", kind));
}

static Status read_block(TextReader *reader)
{
    const Status status = reserve_block(reader);
    if (status != OK) { // its end is unknown, so nothing after it can be read
        reader->at_end = reader->is_damaged = true;
        return skip_fault(reader, status);
    }
    const bool is_first = !reader->stream.is_begun;
    const size_t n = text_stream_read(&reader->stream, reader->buffer + reader->end, BLOCK_BYTES);
    reader->end += n;
    if (is_stopped(reader)) // a signal ends the wait for a pipe's writer as an error of the read
        return fail(FAILED, "%s: interrupted while it was read", reader->path);
    reader->at_end = reader->stream.at_end;
    reader->is_damaged = reader->stream.damage[0] != '\0';
    return is_first && n > 0 ? check_start(reader) : OK;
}

// Called once all whole pieces before the damage are handed out; reports it once.
static Status report_damage(TextReader *reader)
{
    if (reader->is_told || reader->stream.damage[0] == '\0')
        return OK;
    reader->is_told = true;
    return skip_fault(reader, fail_at(reader, TEXT_DAMAGED, "%s", reader->stream.damage));
}

// Finds the next piece that ends in `mark` or with the file, and moves past it. *size is -1 when
// there is none left; *piece points into the buffer.
static Status next_piece(TextReader *reader, const char *mark, const char **piece, int64_t *size)
{
    const size_t mark_bytes = mark != NULL ? strlen(mark) : 0;
    size_t searched = 0; // bytes behind start where no mark begins
    if (reader->buffer == NULL)
        TRY(read_block(reader));
    for (;;) {
        const char *from = reader->buffer + reader->start;
        const size_t held = reader->end - reader->start;
        const char *found = NULL;
        if (mark_bytes > 0 && held >= searched + mark_bytes)
            found = memmem(from + searched, held - searched, mark, mark_bytes);
        if (found != NULL) {
            *piece = from;
            *size = found - from;
            reader->start += (size_t)*size + mark_bytes;
            return OK;
        }
        // A mark may lie across two blocks, so the last mark_bytes - 1 bytes are searched again.
        if (mark_bytes > 0 && held >= mark_bytes)
            searched = held - mark_bytes + 1;
        if (reader->at_end) {
            *piece = from;
            *size = held > 0 && !reader->is_damaged ? (int64_t)held : -1;
            reader->start = reader->end;
            return reader->is_damaged ? report_damage(reader) : OK;
        }
        TRY(read_block(reader));
    }
}

// What a first line that is no JSON object is part of.
static const char *describe_layout(const TextReader *reader, const char *line, int64_t size)
{
    if (reader->n_lines == 0 && line[0] == '[')
        return "; a JSON array is not JSON lines: write one object per line, as jq -c '.[]' does";
    if (reader->n_lines == 0 && size == 1 && line[0] == '{')
        return "; an object over several lines is not JSON lines: write each on one, as jq -c does";
    if (reader->n_lines == 0 && line[0] != '{' && strcmp(reader->path, "stdin") == 0)
        return "; for plain text say --format txt";
    return "";
}

#define TO_UTF8 "convert the file to UTF-8, as iconv -f LATIN1 -t UTF-8 does with Latin-1"

// jansson checks UTF-8 and gives the string with its escapes resolved; the object owns it until the
// next line.
static Status parse_line(TextReader *reader, const char *line, int64_t size, TextDocument *out)
{
    TextLine parsed;
    json_decref(reader->object);
    reader->object = NULL;
    TRY(text_line_parse(&parsed, reader->buffer + (line - reader->buffer), size, reader->field));
    reader->object = parsed.object;
    const int64_t valid = reader->object == NULL ? utf8_valid_bytes(line, size) : size;
    if (valid < size)
        return fail_at(reader, TEXT_NOT_UTF8, "byte 0x%02X at column %lld is not UTF-8; " TO_UTF8,
                       (unsigned char)line[valid], (long long)valid + 1);
    if (reader->object == NULL)
        return fail_at(reader, TEXT_BROKEN_JSON, "not valid JSON at column %d: %s%s",
                       parsed.error.column, parsed.error.text, describe_layout(reader, line, size));
    if (!json_is_object(reader->object))
        return fail_at(reader, TEXT_BROKEN_JSON, "not a JSON object with a field '%s'%s",
                       reader->field, describe_layout(reader, line, size));
    const json_t *text = json_object_get(reader->object, reader->field);
    if (text == NULL)
        return fail_at(reader, TEXT_NO_FIELD,
                       "no field '%s'; name the one with the text by --text-field", reader->field);
    if (!json_is_string(text))
        return fail_at(reader, TEXT_NOT_STRING, "field '%s' is not a string", reader->field);
    if (parsed.is_text_cut)
        return fail_at(reader, TEXT_NOT_UTF8,
                       "field '%s' has half of a surrogate pair (\\ud800 to \\udfff), which is no "
                       "character; mend the line or skip it by --on-error skip",
                       reader->field);
    out->bytes = json_string_value(text);
    out->size_bytes = (int64_t)json_string_length(text);
    return OK;
}

// The white space of RFC 8259, without the line feed that ends the line. Windows files end lines in
// \r\n.
static bool is_json_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

// The next line with a text in it. A faulty one that is skipped counts as a line, so that later
// errors name the right one.
static Status next_of_jsonl(TextReader *reader, TextDocument *out)
{
    for (;;) {
        const char *line;
        int64_t size;
        TRY(next_piece(reader, "\n", &line, &size));
        if (size < 0)
            return OK;
        while (size > 0 && is_json_space(line[size - 1]))
            size--;
        TextDocument document = {NULL, 0};
        if (size > 0)
            TRY(skip_fault(reader, parse_line(reader, line, size, &document)));
        reader->n_lines++;
        if (document.size_bytes == 0)
            continue;
        *out = document;
        return OK;
    }
}

static bool is_line_break(char c)
{
    return c == '\n' || c == '\r';
}

// Tokens of bytes that are no text would be taken for text. UTF-16 may be valid UTF-8 (all of
// Cyrillic's is), but for its spaces and line ends, which have a byte of 0. `piece` points into the
// buffer.
static Status check_utf8(TextReader *reader, const char *piece, int64_t size)
{
    const int64_t from = reader->buffer_from + (piece - reader->buffer);
    const int64_t valid = utf8_valid_bytes(piece, size);
    if (valid < size)
        return fail_at(reader, TEXT_NOT_UTF8, "byte 0x%02X at offset %lld is not UTF-8; " TO_UTF8,
                       (unsigned char)piece[valid], (long long)(from + valid));
    const char *zero = memchr(piece, '\0', (size_t)size);
    if (zero != NULL)
        return fail_at(reader, TEXT_NOT_UTF8,
                       "byte 0x00 at offset %lld is not text; convert UTF-16 with iconv -f UTF-16 "
                       "-t UTF-8, or remove such bytes with tr -d '\\0'",
                       (long long)(from + (zero - piece)));
    return OK;
}

// The next piece between separators. Line breaks beside a separator belong to how it is written,
// not to the documents; without a separator nothing is taken away.
static Status next_of_txt(TextReader *reader, TextDocument *out)
{
    for (;;) {
        const char *piece;
        int64_t size;
        TRY(next_piece(reader, reader->separator, &piece, &size));
        if (size < 0)
            return OK;
        while (reader->separator != NULL && size > 0 && is_line_break(piece[size - 1]))
            size--;
        for (; reader->separator != NULL && size > 0 && is_line_break(piece[0]); size--)
            piece++;
        if (size == 0)
            continue;
        const Status status = check_utf8(reader, piece, size);
        TRY(skip_fault(reader, status));
        if (status != OK)
            continue;
        *out = (TextDocument){piece, size};
        return OK;
    }
}

// Documents are borrowed from the buffer or from jansson: nothing is copied.
Status text_next(TextReader *reader, TextDocument *out)
{
    *out = (TextDocument){NULL, 0};
    return reader->is_jsonl ? next_of_jsonl(reader, out) : next_of_txt(reader, out);
}

int64_t text_offset_bytes(const TextReader *reader)
{
    return text_stream_offset_bytes(&reader->stream);
}

void text_describe_skips(char out[TEXT_SKIPS_BYTES], const TextSkips *skipped)
{
    static const char *const names[TEXT_N_FAULTS][2] = {
        [TEXT_BROKEN_JSON] = {"line of broken JSON", "lines of broken JSON"},
        [TEXT_NO_FIELD] = {"line without the field", "lines without the field"},
        [TEXT_NOT_STRING] = {"line with no string in the field",
                             "lines with no string in the field"},
        [TEXT_NOT_UTF8] = {"document that is not UTF-8 text", "documents that are not UTF-8 text"},
        [TEXT_DAMAGED] = {"damaged file (its rest)", "damaged files (their rest)"},
    };
    int used = 0;
    out[0] = '\0';
    for (int f = 0; f < TEXT_N_FAULTS; f++) {
        const int64_t n = skipped->counts[f];
        if (n > 0)
            used += snprintf(out + used, (size_t)(TEXT_SKIPS_BYTES - used), "%s%lld %s",
                             used > 0 ? ", " : "", (long long)n, names[f][n != 1]);
    }
}

void text_close(TextReader *reader)
{
    if (reader == NULL)
        return;
    text_stream_close(&reader->stream);
    json_decref(reader->object);
    free(reader->buffer);
    free(reader);
}
