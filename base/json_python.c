#include "base/json_python.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_NUMBER = 400 }; // 309 digits hold the largest double

static const char *const names[] = {"NaN", "Infinity", "-Infinity"};
enum { N_NAMES = sizeof names / sizeof *names };

// ---- finding numbers ---------------------------------------------------------------------------

static int64_t count_digits(const char *at, const char *end)
{
    const char *from = at;
    while (at < end && isdigit((unsigned char)*at))
        at++;
    return at - from;
}

// Whether a number may begin at `at`: "-NaN" and "0x1F" are none, and no part of them is.
static bool may_begin(const char *at, const char *start)
{
    return at == start || (!isalnum((unsigned char)at[-1]) && strchr("+-.", at[-1]) == NULL);
}

// RFC 8259, 6, and the names.
int64_t json_python_number(const char *at, const char *start, const char *end)
{
    if (!may_begin(at, start))
        return 0;
    for (int n = 0; n < N_NAMES; n++) {
        const int64_t length = (int64_t)strlen(names[n]);
        if (end - at >= length && memcmp(at, names[n], (size_t)length) == 0)
            return length;
    }
    const char *from = at;
    at += *at == '-';
    const int64_t n_digits = count_digits(at, end);
    if (n_digits == 0)
        return 0;
    at += *at == '0' ? 1 : n_digits;
    if (at < end && *at == '.' && count_digits(at + 1, end) > 0)
        at += 1 + count_digits(at + 1, end);
    if (at < end && (*at == 'e' || *at == 'E')) {
        const bool is_signed = end - at > 1 && (at[1] == '+' || at[1] == '-');
        const int64_t n_exponent = count_digits(at + 1 + is_signed, end);
        if (n_exponent > 0)
            at += 1 + is_signed + n_exponent;
    }
    return at - from;
}

// ---- replacing them ----------------------------------------------------------------------------

typedef enum NumberKind { NUMBER_PLAIN, NUMBER_LARGE, NUMBER_NONE } NumberKind;

// Plain: jansson takes it. Large: an integer beyond 64 bits that a double holds.
static NumberKind kind_of(const char *at, int64_t length)
{
    char text[LONGEST_NUMBER + 1];
    const bool is_name = isalpha((unsigned char)at[length - 1]) != 0;
    if (is_name || length > LONGEST_NUMBER)
        return NUMBER_NONE;
    memcpy(text, at, (size_t)length);
    text[length] = '\0';
    const double value = strtod(text, NULL);
    if (!(value - value == 0)) // infinite
        return NUMBER_NONE;
    errno = 0;
    (void)strtoll(text, NULL, 10);
    return strpbrk(text, ".eE") == NULL && errno == ERANGE ? NUMBER_LARGE : NUMBER_PLAIN;
}

typedef struct Writer {
    char *out; // NULL: only counted
    int64_t size_bytes;
} Writer;

static void put(Writer *writer, const char *bytes, int64_t size_bytes)
{
    if (writer->out != NULL)
        memcpy(writer->out + writer->size_bytes, bytes, (size_t)size_bytes);
    writer->size_bytes += size_bytes;
}

static void put_number(Writer *writer, const char *at, int64_t length)
{
    const NumberKind kind = kind_of(at, length);
    const char *around = kind == NUMBER_NONE ? "\"" : "";
    put(writer, around, (int64_t)strlen(around));
    put(writer, at, length);
    put(writer, around, (int64_t)strlen(around));
    if (kind == NUMBER_LARGE)
        put(writer, ".0", 2);
}

static void put_text(Writer *writer, const char *text, int64_t text_bytes)
{
    const char *end = text + text_bytes;
    bool is_inside = false; // of a string
    for (const char *at = text; at < end;) {
        const int64_t length = is_inside ? 0 : json_python_number(at, text, end);
        if (length > 0) {
            put_number(writer, at, length);
            at += length;
            continue;
        }
        const int64_t n = is_inside && *at == '\\' && end - at > 1 ? 2 : 1;
        is_inside = *at == '"' ? !is_inside : is_inside;
        put(writer, at, n);
        at += n;
    }
}

Status json_python_relax(char **out, int64_t *size_bytes, const char *text, int64_t text_bytes)
{
    Writer writer = {0};
    *out = NULL;
    if (text_bytes == 0) // then there may be no text
        return OK;
    put_text(&writer, text, text_bytes);
    if (writer.size_bytes == text_bytes)
        return OK;
    writer.out = malloc((size_t)writer.size_bytes);
    if (writer.out == NULL)
        return fail(FAILED, "no memory for %lld bytes of JSON", (long long)writer.size_bytes);
    writer.size_bytes = 0;
    put_text(&writer, text, text_bytes);
    *out = writer.out;
    *size_bytes = writer.size_bytes;
    return OK;
}

// ---- and leaving them out ----------------------------------------------------------------------

static bool is_name(const json_t *value)
{
    const char *text = json_string_value(value);
    for (int n = 0; text != NULL && n < N_NAMES; n++)
        if (strcmp(text, names[n]) == 0)
            return true;
    return false;
}

void json_python_drop(json_t *object)
{
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(object, next, key, value)
    {
        if (is_name(value))
            json_object_del(object, key);
        else if (json_is_object(value))
            json_python_drop(value);
    }
}
