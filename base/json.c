// jansson checks syntax and types; what is added here is that every error names the file and the
// key, and that a value has bounds. Duplicate keys are errors: jansson would take the last one, and
// other readers of the same file the first.
#include "base/json.h"

#include "base/file.h"
#include "base/file_kind.h"
#include "base/json_python.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

Status json_parse(json_t **out, const char *bytes, int64_t size_bytes, const char *where)
{
    json_error_t error;
    if (size_bytes == 0) // jansson would speak of wrong arguments
        return fail(BAD_INPUT, "%s: empty, not JSON", where);
    json_t *root = json_loadb(bytes, (size_t)size_bytes, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        return fail(BAD_INPUT, "%s:%d:%d: not valid JSON: %s", where, error.line, error.column,
                    error.text);
    *out = root;
    return OK;
}

// For .jsonl files, whose lines are parsed one by one: errors name the line of the file.
Status json_parse_line(json_t **out, const char *bytes, int64_t size_bytes, const char *path,
                       int number)
{
    json_error_t error;
    // jansson's own line is always 1 here.
    json_t *root = json_loadb(bytes, (size_t)size_bytes, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        return fail(BAD_INPUT, "%s:%d:%d: not valid JSON: %s", path, number, error.column,
                    error.text);
    *out = root;
    return OK;
}

// As Python reads it where it is no JSON: transformers writes such files.
static Status parse_file(json_t **out, const char *bytes, int64_t size_bytes, const char *path)
{
    char *relaxed;
    int64_t relaxed_bytes;
    const Status status = json_parse(out, bytes, size_bytes, path);
    if (status == OK || json_python_relax(&relaxed, &relaxed_bytes, bytes, size_bytes) != OK ||
        relaxed == NULL)
        return status;
    const Status again = json_parse(out, relaxed, relaxed_bytes, path);
    free(relaxed);
    return again;
}

Status json_read(json_t **out, const char *path)
{
    FileMap map;
    TRY(file_map(&map, path));
    const char *kind = map.size_bytes > 0 ? file_kind_of_bytes(map.bytes, map.size_bytes) : NULL;
    Status status = kind == NULL ? parse_file(out, (const char *)map.bytes, map.size_bytes, path)
                                 : fail(BAD_INPUT, "%s: is %s", path, kind);
    file_unmap(&map);
    return status;
}

static Status write_digits(const json_t *root, const char *path, int digits)
{
    AtomicFile file;
    TRY(file_begin(&file, path));
    errno = 0; // set by the stream or by malloc(), and by nothing if the value cannot be written
    if (json_dumpf(root, file.stream, JSON_INDENT(2) | JSON_REAL_PRECISION(digits)) != 0) {
        const int error = errno;
        file_abandon(&file);
        return fail(FAILED, "%s: write failed: %s", path,
                    error != 0 ? strerror(error) : "a value that JSON cannot hold");
    }
    fputc('\n', file.stream);
    return file_commit(&file);
}

enum { DIGITS_FOR_PEOPLE = 10, DIGITS_EXACT = 17 };

Status json_write(const json_t *root, const char *path)
{
    return write_digits(root, path, DIGITS_FOR_PEOPLE);
}

// The digits, `digits` at least, with which every real of a value is read back as it is.
static int exact_digits(const json_t *value, int digits)
{
    // jansson's iterators take no const, and change nothing.
    json_t *parent = (json_t *)(uintptr_t)value;
    json_t *member;
    const char *key;
    size_t i;
    if (json_is_real(value)) {
        char text[32];
        for (; digits < DIGITS_EXACT; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, json_real_value(value));
            if (strtod(text, NULL) == json_real_value(value))
                break;
        }
    }
    json_object_foreach(parent, key, member) digits = exact_digits(member, digits);
    json_array_foreach(parent, i, member) digits = exact_digits(member, digits);
    return digits;
}

Status json_write_exact(const json_t *root, const char *path)
{
    return write_digits(root, path, exact_digits(root, DIGITS_FOR_PEOPLE));
}

// A null means the same as no member: transformers writes both for "not set".
bool json_has(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return value != NULL && !json_is_null(value);
}

const char *json_describe(char out[JSON_TEXT_BYTES], const json_t *value)
{
    // The length that all of it needs, also where that is more than there is.
    size_t length = json_dumpb(value, out, JSON_TEXT_BYTES - 1, JSON_COMPACT | JSON_ENCODE_ANY);
    out[length < JSON_TEXT_BYTES ? length : JSON_TEXT_BYTES - 1] = '\0';
    return out;
}

// The value is shown as the file has it, so that the user sees which of several is meant.
static Status refuse_type(const json_t *value, const char *where, const char *key,
                          const char *expected)
{
    char text[JSON_TEXT_BYTES];
    return fail(BAD_INPUT, "%s: '%s' is not %s: %s", where, key, expected,
                json_describe(text, value));
}

// The member, which must be present and not null.
static Status require(const json_t **out, const json_t *object, const char *where, const char *key)
{
    if (!json_has(object, key))
        return fail(BAD_INPUT, "%s: '%s' is missing", where, key);
    *out = json_object_get(object, key);
    return OK;
}

Status json_get_int(int64_t *out, const json_t *object, const char *where, const char *key,
                    int64_t min, int64_t max)
{
    const json_t *value;
    TRY(require(&value, object, where, key));
    if (!json_is_integer(value)) {
        char text[JSON_TEXT_BYTES], hint[40] = "";
        const double real = json_real_value(value); // 0 of what is no real
        if (json_is_real(value) && real == rint(real) && fabs(real) < 1e15)
            snprintf(hint, sizeof hint, "; write it as %.0f", real);
        return fail(BAD_INPUT, "%s: '%s' is not a whole number: %s%s", where, key,
                    json_describe(text, value), hint);
    }
    int64_t number = json_integer_value(value);
    if (number < min || number > max)
        return fail(BAD_INPUT, "%s: '%s' is %lld, allowed are %lld to %lld", where, key,
                    (long long)number, (long long)min, (long long)max);
    *out = number;
    return OK;
}

Status json_get_real(double *out, const json_t *object, const char *where, const char *key,
                     double min, double max)
{
    const json_t *value;
    TRY(require(&value, object, where, key));
    if (!json_is_number(value))
        return refuse_type(value, where, key, "a number");
    double number = json_number_value(value);
    if (!(number >= min && number <= max)) // a NaN is out of bounds too
        return fail(BAD_INPUT, "%s: '%s' is %g, allowed are %g to %g", where, key, number, min,
                    max);
    *out = number;
    return OK;
}

Status json_get_string(const char **out, const json_t *object, const char *where, const char *key)
{
    const json_t *value;
    TRY(require(&value, object, where, key));
    if (!json_is_string(value))
        return refuse_type(value, where, key, "a string");
    *out = json_string_value(value);
    return OK;
}

// For names that are shown in messages and tables: an escape sequence of a damaged file must not
// reach the terminal.
Status json_get_line(const char **out, const json_t *object, const char *where, const char *key)
{
    const char *text;
    TRY(json_get_string(&text, object, where, key));
    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return fail(BAD_INPUT, "%s: '%s' has control characters: \"%.80s\"", where, key, text);
    *out = text;
    return OK;
}

Status json_get_bool(bool *out, const json_t *object, const char *where, const char *key)
{
    const json_t *value;
    TRY(require(&value, object, where, key));
    if (!json_is_boolean(value))
        return refuse_type(value, where, key, "true or false");
    *out = json_is_true(value);
    return OK;
}

Status json_get_bool_or(bool *out, const json_t *object, const char *where, const char *key,
                        bool otherwise)
{
    *out = otherwise;
    return json_has(object, key) ? json_get_bool(out, object, where, key) : OK;
}
