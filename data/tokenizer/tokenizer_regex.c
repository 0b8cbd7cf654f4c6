// The tokenizers library searches with Oniguruma, this program with PCRE2: a pattern is rewritten
// so that both match the same, and refused where that is not possible. One pass over the pattern,
// element by element. The two engines differ in these points:
//
//     \s, \d, \p{..}     follow different versions of Unicode
//     . ^ $              differ about which characters end a line
//     \v \h \R           name different characters
//     {n}? {n,m}+        are lazy and possessive in PCRE2 only
//     \xHH above 7F      is a byte for Oniguruma, a character for PCRE2
//     && and [ in [..]   are set operations in Oniguruma
//     (?i:ss)            matches a sharp s in Oniguruma, which folds one character to several
#include "data/tokenizer/tokenizer_regex.h"
#include "data/tokenizer/tokenizer_unicode.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 32, MAX_REPEATS = 1000 }; // bounds of what is accepted, beyond any known file's

typedef struct Group {
    bool caseless, is_look_around;
} Group;

typedef struct Rewrite {
    Bytes *out;
    const char *regex, *at;
    Group groups[MAX_DEPTH]; // the whole is groups[0]
    int depth;
    bool can_repeat;      // a quantifier may follow
    char caseless_before; // the letter that a caseless one would follow, or 0
} Rewrite;

// Each class by the characters of the library's Unicode version (tokenizer_unicode.h), not PCRE2's.
static const struct {
    const char *written, *members;
    bool negated;
} classes[] = {
    {"\\s", SPACES, false},     {"\\S", NOT_SPACES, false}, {"\\d", DIGITS, false},
    {"\\D", DIGITS, true},      {"\\p{L}", LETTERS, false}, {"\\P{L}", LETTERS, true},
    {"\\p{^L}", LETTERS, true}, {"\\p{N}", NUMBERS, false}, {"\\P{N}", NUMBERS, true},
    {"\\p{^N}", NUMBERS, true}, {"\\p{Nd}", DIGITS, false}, {"\\P{Nd}", DIGITS, true},
    {"\\p{^Nd}", DIGITS, true},
};

static const struct {
    const char *written;
    bool caseless, is_look_around;
} openings[] = {
    {"(?:", false, false}, {"(?>", false, false}, {"(?i:", true, false}, {"(?=", false, true},
    {"(?!", false, true},  {"(?<=", false, true}, {"(?<!", false, true}, {"(", false, false},
};

// The error names what is not supported, the byte where it stands and what follows there.
static Status refuse(const Rewrite *r, const char *why)
{
    return fail(BAD_INPUT, "regex '%.200s': %s at byte %lld ('%.12s')", r->regex, why,
                (long long)(r->at - r->regex), r->at);
}

static Status put(Rewrite *r, const char *text)
{
    return bytes_append(r->out, text, (int64_t)strlen(text));
}

// Groups inherit it, so the innermost decides.
static bool is_caseless(const Rewrite *r)
{
    return r->groups[r->depth].caseless;
}

// "\s" and its like at the cursor; *found = whether it is one.
static Status put_class_escape(Rewrite *r, bool inside_class, bool *found)
{
    *found = false;
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        size_t length = strlen(classes[i].written);
        if (strncmp(r->at, classes[i].written, length) != 0)
            continue;
        if (inside_class && classes[i].negated)
            return refuse(r, "a negated property inside [] is not supported");
        if (!inside_class)
            TRY(put(r, classes[i].negated ? "[^" : "["));
        TRY(put(r, classes[i].members));
        if (!inside_class)
            TRY(put(r, "]"));
        r->at += length;
        *found = true;
        return OK;
    }
    return OK;
}

// The number after \x or \u, from `min` to `max` digits; -1 if there is none.
static int32_t read_hex(const char **at, int min, int max)
{
    int32_t value = 0;
    int n = 0;
    for (; n < max && isxdigit((unsigned char)(*at)[n]); n++) {
        char digit[2] = {(*at)[n], '\0'};
        value = 16 * value + (int32_t)strtol(digit, NULL, 16);
    }
    *at += n;
    return n >= min ? value : -1;
}

// By number, so that no character of the pattern can be taken for an operator of PCRE2's.
static Status put_code(Rewrite *r, int32_t code)
{
    char text[16];
    snprintf(text, sizeof text, "\\x{%x}", (unsigned)code);
    return put(r, text);
}

// \xHH, \x{H...} or \uHHHH.
static Status put_numbered(Rewrite *r)
{
    const char *at = r->at + 2;
    int32_t code;
    if (is_caseless(r))
        return refuse(r, "a character by number inside (?i:) is not supported");
    if (r->at[1] == 'u') {
        code = read_hex(&at, 4, 4);
    } else if (*at == '{') {
        at++;
        code = read_hex(&at, 1, 6);
        if (*at++ != '}')
            code = -1;
    } else {
        code = read_hex(&at, 1, 2);
        if (code > 0x7F)
            code = -1;
    }
    if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        return refuse(r, "this number of a character is not supported");
    r->at = at;
    return put_code(r, code);
}

// One character at the cursor, escaped or not, as a literal.
static Status put_literal(Rewrite *r)
{
    static const char letters[] = "tnrfvae", codes[] = "\t\n\r\f\v\a\x1B";
    char c = *r->at;
    if (c == '\\') {
        c = r->at[1];
        const char *letter = c != '\0' ? strchr(letters, c) : NULL;
        if (c == 'x' || c == 'u')
            return put_numbered(r);
        if (letter == NULL && !ispunct((unsigned char)c))
            return refuse(r, "this escape is not supported");
        r->at += 2;
        return put_code(r, letter != NULL ? codes[letter - letters] : c);
    }
    if ((unsigned char)c < 0x80) {
        r->at++;
        return put_code(r, c);
    }
    if (is_caseless(r))
        return refuse(r, "a character beyond ASCII inside (?i:) is not supported");
    int length = utf8_length((unsigned char)c);
    TRY(bytes_append(r->out, r->at, length));
    r->at += length;
    return OK;
}

// A literal outside [] in a caseless group: two letters that some one character folds to would
// match it in Oniguruma only.
static Status check_fold(Rewrite *r)
{
    static const char *folds[] = {"ss", "st", "ff", "fi", "fl"};
    char letter = is_caseless(r) ? (char)tolower((unsigned char)*r->at) : '\0';
    for (size_t i = 0; i < sizeof folds / sizeof folds[0]; i++)
        if (letter != '\0' && r->caseless_before == folds[i][0] && letter == folds[i][1])
            return refuse(r, "these two letters inside (?i:), which one character can match, are "
                             "not supported");
    r->caseless_before = letter;
    return OK;
}

// One member of [...]: a class, a character or a range of two.
static Status put_class_member(Rewrite *r, bool is_first)
{
    bool found;
    if (*r->at == '\0')
        return refuse(r, "[ without ]");
    if (*r->at == '[' || strncmp(r->at, "&&", 2) == 0)
        return refuse(r, "a class inside a class is not supported");
    if (*r->at == '-' && !is_first && r->at[1] != ']')
        return refuse(r, "this - inside [] is not supported, write \\-");
    TRY(put_class_escape(r, true, &found));
    if (found)
        return OK;
    TRY(put_literal(r));
    if (r->at[0] != '-' || r->at[1] == ']')
        return OK;
    r->at++;
    if (*r->at == '\0' || *r->at == '[' || (*r->at == '\\' && strchr("sSdDpP", r->at[1]) != NULL))
        return refuse(r, "this end of a range is not supported");
    TRY(put(r, "-"));
    return put_literal(r);
}

// [...] as a whole. Oniguruma's other meanings inside it (nesting, &&, a leading ]) are refused.
static Status put_class(Rewrite *r)
{
    TRY(put(r, "["));
    r->at++;
    if (*r->at == '^') {
        if (is_caseless(r))
            return refuse(r, "[^ inside (?i:) is not supported");
        TRY(put(r, "^"));
        r->at++;
    }
    if (*r->at == ']')
        return refuse(r, "] as the first of [] is not supported, write \\]");
    for (bool is_first = true; *r->at != ']'; is_first = false)
        TRY(put_class_member(r, is_first));
    r->at++;
    return put(r, "]");
}

// A group with its options. (?i: holds for all groups inside it, in both engines.
static Status open_group(Rewrite *r)
{
    size_t i = 0;
    while (strncmp(r->at, openings[i].written, strlen(openings[i].written)) != 0)
        i++; // the last one is found
    if (openings[i].written[1] == '\0' && (r->at[1] == '?' || r->at[1] == '*'))
        return refuse(r, "this kind of group is not supported");
    if (r->depth + 1 == MAX_DEPTH)
        return refuse(r, "more than 31 groups inside each other are not supported");
    bool caseless = openings[i].caseless || is_caseless(r);
    r->groups[++r->depth] = (Group){caseless, openings[i].is_look_around};
    r->at += strlen(openings[i].written);
    r->can_repeat = false;
    return put(r, openings[i].written);
}

static Status close_group(Rewrite *r)
{
    if (r->depth == 0)
        return refuse(r, ") without (");
    // A look-around that repeats means something else to each engine.
    r->can_repeat = !r->groups[r->depth--].is_look_around;
    r->at++;
    return put(r, ")");
}

// {n}, {n,} or {n,m} at the cursor.
static Status put_counts(Rewrite *r)
{
    char text[48], *end;
    long min = 0, max = MAX_REPEATS;
    bool is_range = false;
    const char *at = r->at + 1;
    bool good = isdigit((unsigned char)*at);
    if (good) {
        min = strtol(at, &end, 10);
        at = end;
        is_range = *at == ',';
        if (is_range && isdigit((unsigned char)*++at)) {
            max = strtol(at, &end, 10);
            at = end;
        }
        good = *at == '}' && min <= max && max <= MAX_REPEATS;
    }
    if (!good || is_caseless(r))
        return refuse(r, "this { is not supported; counts go up to 1000, a brace is \\{");
    at++;
    if (*at == '+' || (*at == '?' && !is_range))
        return refuse(r, "a + or ? after these counts is not supported");
    if (*at == '?')
        at++;
    snprintf(text, sizeof text, "%.*s", (int)(at - r->at), r->at);
    r->at = at;
    return put(r, text);
}

// *, + or ?, each also lazy (?) or possessive (+), as in both engines; or counts.
static Status put_quantifier(Rewrite *r)
{
    if (!r->can_repeat)
        return refuse(r, "this repetition is not supported");
    r->can_repeat = false;
    if (*r->at == '{')
        return put_counts(r);
    TRY(bytes_append(r->out, r->at++, 1));
    if (*r->at == '?' || *r->at == '+')
        return bytes_append(r->out, r->at++, 1);
    return OK;
}

// What a quantifier may follow: a class, a dot or a single character. Anchors depend on the
// engine's idea of a line and occur in no known tokenizer.
static Status put_atom(Rewrite *r)
{
    bool found;
    r->can_repeat = true;
    if (*r->at == '[' || *r->at == '.') {
        r->caseless_before = '\0';
        if (*r->at == '[')
            return put_class(r);
        r->at++;
        return put(r, "[^\\n]"); // what PCRE2's dot excludes depends on its build
    }
    if (strchr("^$]}", *r->at) != NULL)
        return refuse(r, "this character unescaped is not supported");
    TRY(check_fold(r));
    TRY(put_class_escape(r, false, &found));
    return found ? OK : put_literal(r);
}

Status regex_rewrite(Bytes *out, const char *regex)
{
    Rewrite r = {.out = out, .regex = regex, .at = regex};
    while (*r.at != '\0') {
        char c = *r.at;
        if (strchr("|*+?{", c) != NULL)
            r.caseless_before = '\0';
        if (c == '(') {
            TRY(open_group(&r));
        } else if (c == ')') {
            TRY(close_group(&r));
        } else if (c == '|') {
            r.can_repeat = false;
            r.at++;
            TRY(put(&r, "|"));
        } else if (strchr("*+?{", c) != NULL) {
            TRY(put_quantifier(&r));
        } else {
            TRY(put_atom(&r));
        }
    }
    // An open group would be reported by PCRE2 too, but in terms of the rewritten pattern.
    return r.depth == 0 ? OK : refuse(&r, "( without )");
}
