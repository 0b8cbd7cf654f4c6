// A line is given to jansson as it is. Where jansson refuses it, what only Python writes is
// replaced by something of the same length, so that columns stay, and it is given to jansson again.
#include "data/text/text_line.h"

#include "base/json_python.h"

#include <stdlib.h>
#include <string.h>

enum { ESCAPE_BYTES = 6 }; // of \uHHHH

// Numbers beside the text do not matter: as reals, fewer of them are too large.
static const size_t load_flags = JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL;

// The surrogate of the escape at `at`: 0xD800..0xDFFF, or 0 if there is none.
static unsigned surrogate_at(const char *at, const char *end)
{
    char digits[5] = "";
    if (end - at < ESCAPE_BYTES || at[0] != '\\' || at[1] != 'u')
        return 0;
    memcpy(digits, at + 2, 4);
    if (strspn(digits, "0123456789abcdefABCDEF") != 4)
        return 0;
    const unsigned code = (unsigned)strtoul(digits, NULL, 16);
    return code >= 0xD800 && code <= 0xDFFF ? code : 0;
}

// What relax() found and replaced.
typedef struct Relaxed {
    bool has_numbers, has_halves;
} Relaxed;

// Replaces every number by 0 and spaces, and every half of a surrogate pair by the character `half`
// (four hexadecimal digits).
static Relaxed relax(char *line, int64_t size_bytes, const char *half)
{
    Relaxed found = {0};
    char *end = line + size_bytes;
    bool is_inside = false; // of a string
    for (char *at = line; at < end;) {
        int64_t n = 1;
        if (*at == '"') {
            is_inside = !is_inside;
        } else if (is_inside && *at == '\\') {
            const unsigned code = surrogate_at(at, end);
            const unsigned next = code != 0 ? surrogate_at(at + ESCAPE_BYTES, end) : 0;
            const bool is_pair = code != 0 && code < 0xDC00 && next >= 0xDC00;
            if (code != 0 && !is_pair) {
                memcpy(at + 2, half, 4);
                found.has_halves = true;
            }
            n = is_pair ? 2 * ESCAPE_BYTES : 2; // what is escaped ends no string
        } else if (!is_inside && json_python_number(at, line, end) > 0) {
            n = json_python_number(at, line, end);
            memset(at, ' ', (size_t)n);
            *at = '0';
            found.has_numbers = true;
        }
        at += n;
    }
    return found;
}

// Whether the string in the field differs between two readings of a line.
static bool texts_differ(const json_t *a, const json_t *b, const char *field)
{
    const json_t *one = json_object_get(a, field), *other = json_object_get(b, field);
    return json_is_string(one) && !json_equal(one, other);
}

// The line again, relaxed; `copy` is the line as it was.
static void load_relaxed(TextLine *parsed, char *line, char *copy, int64_t size_bytes,
                         const char *field)
{
    const Relaxed relaxed = relax(line, size_bytes, "fffd");
    if (!relaxed.has_numbers && !relaxed.has_halves)
        return;
    parsed->object = json_loadb(line, (size_t)size_bytes, load_flags, &parsed->error);
    if (parsed->object == NULL || !relaxed.has_halves)
        return;
    // Whether one was in the text shows where another character in their place changes it.
    relax(copy, size_bytes, "fffc");
    json_t *other = json_loadb(copy, (size_t)size_bytes, load_flags, NULL);
    parsed->is_text_cut = texts_differ(parsed->object, other, field);
    json_decref(other);
}

Status text_line_parse(TextLine *out, char *line, int64_t size_bytes, const char *field)
{
    TextLine parsed = {0};
    parsed.object = json_loadb(line, (size_t)size_bytes, load_flags, &parsed.error);
    if (parsed.object == NULL) {
        char *copy = malloc((size_t)size_bytes);
        if (copy == NULL)
            return fail(FAILED, "no memory for a line of %lld bytes", (long long)size_bytes);
        memcpy(copy, line, (size_t)size_bytes);
        load_relaxed(&parsed, line, copy, size_bytes, field);
        free(copy);
    }
    *out = parsed;
    return OK;
}
