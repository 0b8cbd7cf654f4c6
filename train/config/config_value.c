// Numbers are read strictly: strtod() and strtoll() alone accept what YAML readers see as text,
// such as "4x" up to the x, " 4", "0x10" or "nan".
#include "train/config/config_value.h"

#include "base/suggest.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

_Static_assert(sizeof(DType) == sizeof(int) && sizeof(RopeStrategy) == sizeof(int) &&
                   sizeof(SvdKind) == sizeof(int),
               "KEY_NAME writes enums as ints");

// The shortest text that reads back as the same double: between 6 and 17 significant digits, as 17
// always suffice for IEEE 754's 53 bits.
void value_format_real(char out[REAL_TEXT_BYTES], double value)
{
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, REAL_TEXT_BYTES, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            break;
    }
    // %g writes 1e-08, which readers of YAML 1.1 such as PyYAML take for a text: they want a point
    // before the exponent.
    char *exponent = strchr(out, 'e');
    if (exponent != NULL && strchr(out, '.') == NULL) {
        memmove(exponent + 2, exponent, strlen(exponent) + 1);
        memcpy(exponent, ".0", 2);
    }
}

// "2-norm, high, low": cut at out_bytes.
void value_format_names(char *out, size_t out_bytes, const char *const *names)
{
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; names[i] != NULL && used < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", i > 0 ? ", " : "", names[i]);
}

// Whole numbers without an exponent, as %g would round them.
static void complain_bounds(const Key *key, const Node *node, ConfigErrors *errors)
{
    char min[REAL_TEXT_BYTES], max[REAL_TEXT_BYTES];
    bool is_whole = key->kind == KEY_INT || key->kind == KEY_LONG;
    if (is_whole) {
        snprintf(min, sizeof min, "%.0f", key_min(key));
        snprintf(max, sizeof max, "%.0f", key_max(key));
    } else {
        value_format_real(min, key_min(key));
        value_format_real(max, key_max(key));
    }
    errors_add(errors, node->line, key->path, "%s is %.100s, allowed are %s to %s%s%s", key->path,
               node->text, min, max, key->unit != NULL ? " " : "",
               key->unit != NULL ? key->unit : "");
}

// Decimal digits after an optional sign, nothing else: YAML's octal and hexadecimal numbers and
// underscores are refused.
static bool is_whole_number(const char *text)
{
    text += *text == '-' || *text == '+';
    return *text != '\0' && text[strspn(text, "0123456789")] == '\0';
}

static bool is_number(const char *text)
{
    char *end;
    strtod(text, &end);
    // The characters rule out hexadecimal, infinity and NaN; the end rules out "1e" and "1.2.3".
    return strpbrk(text, "0123456789") != NULL && strspn(text, "+-.0123456789eE") == strlen(text) &&
           *end == '\0';
}

// Compared as doubles: bounds are doubles in the table, and whole numbers up to 2^53 are exact in
// them. A value in quotes is text for every YAML reader, so it is not a number here either.
static void set_whole(void *field, const Key *key, const Node *node, ConfigErrors *errors)
{
    if (node->is_quoted || !is_whole_number(node->text)) {
        char hint[SUGGEST_WHOLE_BYTES];
        suggest_whole(hint, node->text);
        errors_add(errors, node->line, key->path, "%s is '%.100s', which is not a whole number%s",
                   key->path, node->text, hint);
        return;
    }
    errno = 0;
    long long value = strtoll(node->text, NULL, 10);
    if (errno == ERANGE || (double)value < key_min(key) || (double)value > key_max(key))
        complain_bounds(key, node, errors);
    else if (key->kind == KEY_LONG)
        *(int64_t *)field = value;
    else
        *(int *)field = (int)value;
}

// The comparison is written so that NaN, should it ever come here, fails it.
static void set_real(double *field, const Key *key, const Node *node, ConfigErrors *errors)
{
    if (node->is_quoted || !is_number(node->text)) {
        errors_add(errors, node->line, key->path,
                   "%s is '%.100s', which is not a number such as 0.5 or 5.0e-1", key->path,
                   node->text);
        return;
    }
    double value = strtod(node->text, NULL); // infinite on overflow: out of bounds
    if (value >= key_min(key) && value <= key_max(key))
        *field = value;
    else
        complain_bounds(key, node, errors);
}

// A number such as 0.004, or a percentage such as 0.4%.
static void set_share(double *field, const Key *key, const Node *node, ConfigErrors *errors)
{
    char text[64];
    size_t length = strlen(node->text);
    bool is_percent = length > 0 && node->text[length - 1] == '%';
    snprintf(text, sizeof text, "%.*s", (int)(length < sizeof text ? length - is_percent : 0),
             node->text);
    if (node->is_quoted || !is_number(text)) {
        errors_add(errors, node->line, key->path,
                   "%s is '%.100s', which is not a share; write it as 0.004 or 0.4%%", key->path,
                   node->text);
        return;
    }
    double value = strtod(text, NULL) / (is_percent ? 100 : 1);
    if (value >= key_min(key) && value <= key_max(key))
        *field = value;
    else
        complain_bounds(key, node, errors);
}

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

// The booleans of YAML 1.2. Those that only YAML 1.1 knows are refused with the word to write, as
// readers do not agree on them.
static void set_bool(bool *field, const Key *key, const Node *node, ConfigErrors *errors)
{
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    static const char *const yes[] = {"yes", "Yes", "YES", "on", "On", "ON", "y", "Y", "1", NULL};
    static const char *const no[] = {"no", "No", "NO", "off", "Off", "OFF", "n", "N", "0", NULL};
    const char *hint = "true or false";
    if (!node->is_quoted && is_one_of(node->text, trues)) {
        *field = true;
        return;
    }
    if (!node->is_quoted && is_one_of(node->text, falses)) {
        *field = false;
        return;
    }
    if (is_one_of(node->text, yes) || is_one_of(node->text, trues))
        hint = "true";
    else if (is_one_of(node->text, no) || is_one_of(node->text, falses))
        hint = "false";
    errors_add(errors, node->line, key->path, "%s is '%.100s'; write %s%s", key->path, node->text,
               hint, node->is_quoted ? " without quotes" : "");
}

// The index in key->names, which is the enum's value.
static void set_name(int *field, const Key *key, const Node *node, ConfigErrors *errors)
{
    for (int i = 0; key->names[i] != NULL; i++) {
        if (strcmp(key->names[i], node->text) == 0) {
            *field = i;
            return;
        }
    }
    char names[128];
    value_format_names(names, sizeof names, key->names);
    errors_add(errors, node->line, key->path, "%s is '%.100s', allowed are %s", key->path,
               node->text, names);
}

bool value_is_none(const Node *node)
{
    static const char *const words[] = {"none", "null", "Null", "NULL", "~", NULL};
    return node->kind == NODE_SCALAR && !node->is_quoted && is_one_of(node->text, words);
}

// What a shell or another program would have put in: '~/', '$HOME/' and '${HOME}'. Taken as it is
// it names a directory that nobody wants. NULL: nothing of the kind.
static const char *find_unexpanded(const Key *key, const char *text)
{
    const char *variable = strstr(text, "${");
    if (variable != NULL || !key->is_path)
        return variable;
    const bool is_home = text[0] == '~' && (text[1] == '/' || text[1] == '\0');
    const bool is_variable = text[0] == '$' && (text[1] == '_' || isalpha((unsigned char)text[1]));
    return is_home || is_variable ? text : NULL;
}

// An override may replace a text that the file has set, hence the free().
static Status set_text(char **field, const Key *key, const Node *node, ConfigErrors *errors)
{
    if (node->kind != NODE_SCALAR) {
        errors_add(errors, node->line, key->path, "%s has a %s where it needs text", key->path,
                   node->kind == NODE_LIST ? "list" : "mapping");
        return OK;
    }
    if (node->text[0] == '\0') {
        errors_add(errors, node->line, key->path, "%s has no value; give it one or leave it out",
                   key->path);
        return OK;
    }
    if (value_is_none(node)) {
        errors_add(errors, node->line, key->path,
                   "%s is %s, which is no text; leave the key out%s, or write it in quotes",
                   key->path, node->text, key->standard != NULL ? " for its default" : "");
        return OK;
    }
    const char *unexpanded = find_unexpanded(key, node->text);
    if (unexpanded != NULL) {
        errors_add(errors, node->line, key->path,
                   "%s has '%.100s', which is not expanded in a config; write the value out, or "
                   "give it on the command line, where the shell expands it",
                   key->path, unexpanded);
        return OK;
    }
    char *copy = strdup(node->text);
    if (copy == NULL)
        return fail(FAILED, "%s: no memory to read it", key->path);
    free(*field);
    *field = copy;
    return OK;
}

// The list is attached with its length before it is filled, so that what is there is freed after an
// error.
static Status set_texts(char ***field, int *count, const Key *key, const Node *node,
                        ConfigErrors *errors)
{
    const Node *item = node->kind == NODE_LIST ? node->first : node; // one text is a list of one
    int n = node->kind == NODE_LIST ? node->n_children : 1;
    if (n == 0) {
        errors_add(errors, node->line, key->path, "%s is an empty list; give at min one entry",
                   key->path);
        return OK;
    }
    char **texts = calloc((size_t)n, sizeof *texts);
    if (texts == NULL)
        return fail(FAILED, "%s: no memory to read it", key->path);
    *field = texts;
    *count = n;
    for (int i = 0; i < n; i++, item = item->next)
        TRY(set_text(&texts[i], key, item, errors));
    return OK;
}

// Errors of the user's go to `errors` and leave the field as it is; FAILED is for lack of memory
// alone.
Status value_set(void *field, int *count, const Key *key, const Node *node, ConfigErrors *errors)
{
    if (key->kind == KEY_TEXTS)
        return set_texts(field, count, key, node, errors);
    if (key->kind == KEY_TEXT)
        return set_text(field, key, node, errors);
    if (node->kind != NODE_SCALAR) {
        errors_add(errors, node->line, key->path, "%s is a %s where it needs a single value",
                   key->path, node->kind == NODE_LIST ? "list" : "mapping");
        return OK;
    }
    switch (key->kind) {
    case KEY_INT:
    case KEY_LONG:
        set_whole(field, key, node, errors);
        return OK;
    case KEY_REAL:
        set_real(field, key, node, errors);
        return OK;
    case KEY_SHARE:
        set_share(field, key, node, errors);
        return OK;
    case KEY_BOOL:
        set_bool(field, key, node, errors);
        return OK;
    case KEY_NAME:
        set_name(field, key, node, errors);
        return OK;
    default:
        CHECK(false, "%s is of kind %d, which has no value", key->path, (int)key->kind);
    }
}

// Defaults are texts of the table and take the same way as a user's, so they are checked too: one
// that is out of bounds is a mistake in the table.
Status value_set_standard(void *field, const Key *key, ConfigErrors *errors)
{
    int n_before = errors->n;
    const Node node = {.kind = NODE_SCALAR, .text = key->standard};
    TRY(value_set(field, NULL, key, &node, errors));
    CHECK(errors->n == n_before, "default '%s' of %s", key->standard, key->path);
    return OK;
}

// ---- writing ----

static const void *field_of(const void *base, size_t offset)
{
    return (const char *)base + offset;
}

// Words that some YAML reader takes for something else than text.
static bool is_word_of_yaml(const char *text)
{
    static const char *const words[] = {"none", "null", "true", "false", "yes",
                                        "no",   "on",   "off",  "y",     "n"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(text, words[i]) == 0)
            return true;
    }
    return false;
}

// Plain only where no reader can see anything but text; single quotes know one escape, '' for '.
void value_write_text(FILE *out, const char *text)
{
    const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const char others[] = "0123456789_./-";
    size_t length = 0;
    while (text[length] != '\0' &&
           (strchr(letters, text[length]) != NULL || strchr(others, text[length]) != NULL))
        length++;
    bool starts_plain = text[0] == '/' || (text[0] != '\0' && strchr(letters, text[0]) != NULL);
    if (starts_plain && text[length] == '\0' && !is_word_of_yaml(text)) {
        fputs(text, out);
        return;
    }
    fputc('\'', out);
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '\'')
            fputc('\'', out);
        fputc(*c, out);
    }
    fputc('\'', out);
}

// What is written reads back as the same value.
void value_write(FILE *out, const void *base, const Key *key)
{
    const void *field = field_of(base, key->offset);
    char real[REAL_TEXT_BYTES];
    switch (key->kind) {
    case KEY_TEXT:
        value_write_text(out, *(const char *const *)field);
        return;
    case KEY_INT:
        fprintf(out, "%d", *(const int *)field);
        return;
    case KEY_LONG:
        fprintf(out, "%lld", (long long)*(const int64_t *)field);
        return;
    case KEY_REAL:
    case KEY_SHARE:
        value_format_real(real, *(const double *)field);
        fputs(real, out);
        return;
    case KEY_BOOL:
        fputs(*(const bool *)field ? "true" : "false", out);
        return;
    case KEY_NAME:
        fputs(key->names[*(const int *)field], out);
        return;
    default:
        CHECK(false, "%s is of kind %d, which is not a scalar", key->path, (int)key->kind);
    }
}

// Numbers have no "not given" of their own: an optional one is 0, which lies below its bounds.
bool value_is_given(const void *base, const Key *key)
{
    const void *field = field_of(base, key->offset);
    if (key->only_with != 0 && *(const int *)field_of(base, key->only_with) == 0)
        return false;
    if (key->kind == KEY_BLOCK)
        return *(const bool *)field;
    if (key->kind == KEY_TEXTS)
        return *(const int *)field_of(base, key->count_offset) > 0;
    if (key_is_optional(key) && (key->kind == KEY_REAL || key->kind == KEY_SHARE))
        return *(const double *)field >= key_min(key);
    if (key_is_optional(key) && key->kind == KEY_INT)
        return *(const int *)field >= key_min(key);
    return key->kind != KEY_TEXT || *(const char *const *)field != NULL;
}
