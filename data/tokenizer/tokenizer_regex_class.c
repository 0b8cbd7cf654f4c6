// Classes of characters. PCRE2 10.42 has neither sets inside [...] nor the library's version of
// Unicode, so a class becomes a PCRE2 class of what can be spelled out in one, alternatives beside
// it for the complements and classes inside it, and look-aheads for intersections:
//
//     [a\W]          (?:[\x{61}]|[^WORD])
//     [a-z&&[^e]]    (?:(?=[\x{61}-\x{7a}])[^\x{65}])
//     [^a\W]         (?:(?!(?:[\x{61}]|[^WORD]))(?s:.))
#include "data/tokenizer/tokenizer_regex_parts.h"
#include "data/tokenizer/tokenizer_unicode.h"

#include <string.h>

// Each class by the characters of the library's Unicode version (tokenizer_unicode.h), not PCRE2's.
static const struct {
    const char *name, *members;
    bool is_cased; // matches more in a caseless group of Oniguruma's
} properties[] = {
    {"L", LETTERS, false},     {"N", NUMBERS, false},         {"Nd", DIGITS, false},
    {"Lu", UPPERCASE, true},   {"Ll", LOWERCASE, true},       {"Lt", TITLECASE, true},
    {"Lm", MODIFIERS, false},  {"Lo", OTHER_LETTERS, false},  {"M", MARKS, false},
    {"P", PUNCTUATION, false}, {"S", SYMBOLS, false},         {"Han", HAN, false},
    {"Hangul", HANGUL, false}, {"Hiragana", HIRAGANA, false}, {"Katakana", KATAKANA, false},
};

// Oniguruma's words are others inside [] than outside.
static const struct {
    char letter; // behind the backslash
    const char *members, *members_inside;
    bool negated;
} class_letters[] = {
    {'s', SPACES, SPACES, false},
    {'S', NOT_SPACES, NOT_SPACES, false},
    {'d', DIGITS, DIGITS, false},
    {'D', DIGITS, DIGITS, true},
    {'w', ONIGURUMA_WORD_CHARS, CLASS_WORD_CHARS, false},
    {'W', ONIGURUMA_WORD_CHARS, CLASS_WORD_CHARS, true},
};

// What an escape such as \s, \p{L}, \P{L} or \p{^L} stands for.
typedef struct ClassEscape {
    const char *members;
    bool negated, is_cased;
    int length; // of the escape; 0: it is none
} ClassEscape;

static ClassEscape find_letter(const char *at, bool is_inside)
{
    for (size_t i = 0; i < sizeof class_letters / sizeof class_letters[0]; i++)
        if (at[0] == '\\' && at[1] == class_letters[i].letter)
            return (ClassEscape){is_inside ? class_letters[i].members_inside
                                           : class_letters[i].members,
                                 class_letters[i].negated, false, 2};
    return (ClassEscape){0};
}

static ClassEscape find_property(const char *at)
{
    if (strncmp(at, "\\p{", 3) != 0 && strncmp(at, "\\P{", 3) != 0)
        return (ClassEscape){0};
    const bool is_inverted = at[1] == 'p' && at[3] == '^';
    const char *name = at + 3 + is_inverted;
    for (size_t i = 0; i < sizeof properties / sizeof properties[0]; i++) {
        const size_t length = strlen(properties[i].name);
        if (strncmp(name, properties[i].name, length) == 0 && name[length] == '}')
            return (ClassEscape){properties[i].members, at[1] == 'P' || is_inverted,
                                 properties[i].is_cased, (int)(name - at + (int)length + 1)};
    }
    return (ClassEscape){0};
}

// The escape at the cursor, which moves behind it; length 0: there is none.
static Status take_escape(ClassEscape *out, Rewrite *r)
{
    *out = find_letter(r->at, r->class_depth > 0);
    if (out->length == 0)
        *out = find_property(r->at);
    if (out->is_cased && regex_is_caseless(r))
        return regex_refuse(r, "a property of upper or lower case inside (?i:) is not supported");
    r->at += out->length;
    return OK;
}

Status regex_put_class_escape(Rewrite *r, bool *found)
{
    ClassEscape escape;
    TRY(take_escape(&escape, r));
    *found = escape.length > 0;
    if (!*found)
        return OK;
    TRY(regex_put(r, escape.negated ? "[^" : "["));
    TRY(regex_put(r, escape.members));
    return regex_put(r, "]");
}

// What stands between [ or && and && or ]: the union of its members.
typedef struct ClassUnion {
    Bytes members; // within a class of PCRE2's
    Bytes others;  // alternatives to it, each behind "|"
} ClassUnion;

static void union_release(ClassUnion *set)
{
    bytes_release(&set->members);
    bytes_release(&set->others);
}

static Status append(Bytes *out, const Bytes *bytes)
{
    return bytes_append(out, bytes->data, bytes->size);
}

static Status append_text(Bytes *out, const char *text)
{
    return bytes_append(out, text, (int64_t)strlen(text));
}

// A character or a range of two.
static Status read_range(Rewrite *r, Bytes *members)
{
    Bytes *out = r->out;
    Status status;
    r->out = members;
    TRY_GOTO(restore, regex_put_literal(r));
    if (r->at[0] != '-' || r->at[1] == ']')
        goto restore;
    r->at++;
    if (*r->at == '\0' || *r->at == '[' || strncmp(r->at, "&&", 2) == 0 ||
        (*r->at == '\\' && strchr("sSdDwWpP", r->at[1]) != NULL)) {
        status = regex_refuse(r, "this end of a range is not supported");
        goto restore;
    }
    TRY_GOTO(restore, regex_put(r, "-"));
    status = regex_put_literal(r);
restore:
    r->out = out;
    return status;
}

// A class inside a class.
static Status read_inner_class(Rewrite *r, Bytes *others)
{
    if (r->at[1] == ':')
        return regex_refuse(r, "a class by name inside [] is not supported");
    if (regex_is_caseless(r))
        return regex_refuse(r, "a class inside a class inside (?i:) is not supported");
    Bytes *out = r->out;
    r->out = others;
    Status status;
    TRY_GOTO(restore, regex_put(r, "|"));
    status = regex_put_class(r);
restore:
    r->out = out;
    return status;
}

static Status read_member(Rewrite *r, ClassUnion *set, bool is_first)
{
    ClassEscape escape;
    if (*r->at == '\0')
        return regex_refuse(r, "[ without ]");
    if (*r->at == '[')
        return read_inner_class(r, &set->others);
    if (*r->at == '-' && !is_first && r->at[1] != ']')
        return regex_refuse(r, "this - inside [] is not supported, write \\-");
    TRY(take_escape(&escape, r));
    if (escape.length == 0)
        return read_range(r, &set->members);
    if (!escape.negated)
        return append_text(&set->members, escape.members);
    if (regex_is_caseless(r))
        return regex_refuse(r, "a negated property in [] inside (?i:) is not supported");
    TRY(append_text(&set->others, "|[^"));
    TRY(append_text(&set->others, escape.members));
    return append_text(&set->others, "]");
}

// *is_last: a ] follows, and not &&.
static Status read_union(Rewrite *r, ClassUnion *set, bool *is_last)
{
    const char *start = r->at;
    while (*r->at != ']' && strncmp(r->at, "&&", 2) != 0)
        TRY(read_member(r, set, r->at == start && start[-1] != '&'));
    *is_last = *r->at == ']';
    if (r->at == start)
        return regex_refuse(r, *is_last ? "] as the first of [] is not supported, write \\]"
                                        : "&& without a left side is not supported");
    r->at += *is_last ? 1 : 2;
    if (!*is_last && regex_is_caseless(r))
        return regex_refuse(r, "&& inside (?i:) is not supported");
    return OK;
}

// The union as a pattern of one character.
static Status append_union(Bytes *out, const ClassUnion *set)
{
    if (set->members.size > 0) {
        TRY(append_text(out, set->others.size > 0 ? "(?:[" : "["));
        TRY(append(out, &set->members));
        TRY(append_text(out, "]"));
        TRY(append(out, &set->others));
    } else {
        TRY(append_text(out, "(?:"));
        TRY(bytes_append(out, set->others.data + 1, set->others.size - 1)); // without its |
    }
    return append_text(out, set->others.size > 0 ? ")" : "");
}

// The unions up to the ], intersected: all but the last as look-aheads. *is_plain: it is one class
// of PCRE2's, whose members alone are appended.
static Status append_intersection(Rewrite *r, Bytes *out, bool *is_plain)
{
    Status status = OK;
    bool is_last = false;
    for (int n = 0; !is_last; n++) {
        ClassUnion set = {0};
        TRY_GOTO(release, read_union(r, &set, &is_last));
        *is_plain = n == 0 && is_last && set.others.size == 0;
        if (*is_plain) {
            TRY_GOTO(release, append(out, &set.members));
        } else {
            TRY_GOTO(release, append_text(out, is_last ? "" : "(?="));
            TRY_GOTO(release, append_union(out, &set));
            TRY_GOTO(release, append_text(out, is_last ? "" : ")"));
        }
    release:
        union_release(&set);
        TRY(status);
    }
    return OK;
}

static Status put_class(Rewrite *r)
{
    Bytes set = {0};
    bool is_plain;
    Status status;
    r->at++;
    const bool is_negated = *r->at == '^';
    if (is_negated && regex_is_caseless(r))
        return regex_refuse(r, "[^ inside (?i:) is not supported");
    r->at += is_negated;
    TRY_GOTO(release, append_intersection(r, &set, &is_plain));
    if (is_plain)
        TRY_GOTO(release, regex_put(r, is_negated ? "[^" : "["));
    else
        TRY_GOTO(release, regex_put(r, is_negated ? "(?:(?!" : "(?:"));
    TRY_GOTO(release, append(r->out, &set));
    TRY_GOTO(release, regex_put(r, is_plain ? "]" : is_negated ? ")(?s:.))" : ")"));
release:
    bytes_release(&set);
    return status;
}

Status regex_put_class(Rewrite *r)
{
    if (r->class_depth == REGEX_MAX_DEPTH)
        return regex_refuse(r, "more than 32 classes inside each other are not supported");
    r->class_depth++;
    const Status status = put_class(r);
    r->class_depth--;
    return status;
}
