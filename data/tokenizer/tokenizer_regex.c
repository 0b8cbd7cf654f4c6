// The tokenizers library searches with Oniguruma, this program with PCRE2: a pattern is rewritten
// so that both match the same, and refused where that is not possible. One pass over the pattern,
// element by element. The two engines differ in these points:
//
//     \s, \d, \p{..}     follow different versions of Unicode
//     \w \b              hold different characters
//     . ^ $              differ about which characters end a line
//     (?i)               ends with its alternative in Oniguruma, with its group in PCRE2
//     \v \h \R           name different characters
//     {n}? {n,m}+        are lazy and possessive in PCRE2 only
//     \xHH above 7F      is a byte for Oniguruma, a character for PCRE2
//     && and [ in [..]   are set operations in Oniguruma (tokenizer_regex_class.c)
//     (?i:ss)            matches a sharp s in Oniguruma, which folds one character to several
#include "data/tokenizer/tokenizer_regex.h"
#include "data/tokenizer/tokenizer_regex_parts.h"
#include "data/tokenizer/tokenizer_unicode.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPEATS = 1000 }; // a bound beyond any known file's

static const struct {
    const char *written;
    bool caseless, is_look_around;
} openings[] = {
    {"(?:", false, false}, {"(?>", false, false}, {"(?i:", true, false}, {"(?=", false, true},
    {"(?!", false, true},  {"(?<=", false, true}, {"(?<!", false, true}, {"(", false, false},
};

// The error names what is not supported, the byte where it stands and what follows there.
Status regex_refuse(const Rewrite *r, const char *why)
{
    return fail(BAD_INPUT, "regex '%.200s': %s at byte %lld ('%.12s')", r->regex, why,
                (long long)(r->at - r->regex), r->at);
}

Status regex_put(Rewrite *r, const char *text)
{
    return bytes_append(r->out, text, (int64_t)strlen(text));
}

// Groups inherit it, so the innermost decides.
bool regex_is_caseless(const Rewrite *r)
{
    return r->groups[r->depth].caseless;
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
    return regex_put(r, text);
}

// \xHH, \x{H...} or \uHHHH.
static Status put_numbered(Rewrite *r)
{
    const char *at = r->at + 2;
    int32_t code;
    if (regex_is_caseless(r))
        return regex_refuse(r, "a character by number inside (?i:) is not supported");
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
        return regex_refuse(r, "this number of a character is not supported");
    r->at = at;
    return put_code(r, code);
}

// One character at the cursor, escaped or not, as a literal.
Status regex_put_literal(Rewrite *r)
{
    static const char letters[] = "tnrfvae", codes[] = "\t\n\r\f\v\a\x1B";
    char c = *r->at;
    if (c == '\\') {
        c = r->at[1];
        const char *letter = c != '\0' ? strchr(letters, c) : NULL;
        if (c == 'x' || c == 'u')
            return put_numbered(r);
        if (letter == NULL && !ispunct((unsigned char)c))
            return regex_refuse(r, "this escape is not supported");
        r->at += 2;
        return put_code(r, letter != NULL ? codes[letter - letters] : c);
    }
    if ((unsigned char)c < 0x80) {
        r->at++;
        return put_code(r, c);
    }
    if (regex_is_caseless(r))
        return regex_refuse(r, "a character beyond ASCII inside (?i:) is not supported");
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
    char letter = regex_is_caseless(r) ? (char)tolower((unsigned char)*r->at) : '\0';
    for (size_t i = 0; i < sizeof folds / sizeof folds[0]; i++)
        if (letter != '\0' && r->caseless_before == folds[i][0] && letter == folds[i][1])
            return regex_refuse(
                r, "these two letters inside (?i:), which one character can match, are "
                   "not supported");
    r->caseless_before = letter;
    return OK;
}

// (?i) makes the rest of its group caseless. Behind something else in an alternative it would, in
// Oniguruma, take the alternatives that follow into a group with it.
static Status put_option(Rewrite *r)
{
    if (!r->is_at_start)
        return regex_refuse(r, "(?i) behind something else is not supported");
    r->groups[r->depth].caseless = true;
    r->at += 4;
    return regex_put(r, "(?i)");
}

// A group with its options. (?i: holds for all groups inside it, in both engines.
static Status open_group(Rewrite *r)
{
    size_t i = 0;
    while (strncmp(r->at, openings[i].written, strlen(openings[i].written)) != 0)
        i++; // the last one is found
    if (openings[i].written[1] == '\0' && (r->at[1] == '?' || r->at[1] == '*'))
        return regex_refuse(r, "this kind of group is not supported");
    if (r->depth + 1 == REGEX_MAX_DEPTH)
        return regex_refuse(r, "more than 31 groups inside each other are not supported");
    bool caseless = openings[i].caseless || regex_is_caseless(r);
    r->groups[++r->depth] = (RegexGroup){caseless, openings[i].is_look_around};
    r->at += strlen(openings[i].written);
    r->can_repeat = false;
    return regex_put(r, openings[i].written);
}

static Status close_group(Rewrite *r)
{
    if (r->depth == 0)
        return regex_refuse(r, ") without (");
    // A look-around that repeats means something else to each engine.
    r->can_repeat = !r->groups[r->depth--].is_look_around;
    r->at++;
    return regex_put(r, ")");
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
    if (!good || regex_is_caseless(r))
        return regex_refuse(r, "this { is not supported; counts go up to 1000, a brace is \\{");
    at++;
    if (*at == '+' || (*at == '?' && !is_range))
        return regex_refuse(r, "a + or ? after these counts is not supported");
    if (*at == '?')
        at++;
    snprintf(text, sizeof text, "%.*s", (int)(at - r->at), r->at);
    r->at = at;
    return regex_put(r, text);
}

// *, + or ?, each also lazy (?) or possessive (+), as in both engines; or counts.
static Status put_quantifier(Rewrite *r)
{
    if (!r->can_repeat)
        return regex_refuse(r, "this repetition is not supported");
    r->can_repeat = false;
    if (*r->at == '{')
        return put_counts(r);
    TRY(bytes_append(r->out, r->at++, 1));
    if (*r->at == '?' || *r->at == '+')
        return bytes_append(r->out, r->at++, 1);
    return OK;
}

// A word character before, or none, and one after, or none. An end of the text is none.
static Status put_between(Rewrite *r, bool before, bool after)
{
    TRY(regex_put(r, before ? "(?<=[" : "(?<!["));
    TRY(regex_put(r, ONIGURUMA_WORD_CHARS));
    TRY(regex_put(r, after ? "])(?=[" : "])(?!["));
    TRY(regex_put(r, ONIGURUMA_WORD_CHARS));
    return regex_put(r, "])");
}

// \b, \B and $, whose meaning depends on the engine's classes and its idea of a line; *found =
// whether one of them is at the cursor. ^ and the others occur in no known tokenizer.
static Status put_anchor(Rewrite *r, bool *found)
{
    const bool is_end = *r->at == '$', is_boundary = strncmp(r->at, "\\b", 2) == 0;
    *found = is_end || is_boundary || strncmp(r->at, "\\B", 2) == 0;
    if (!*found)
        return OK;
    r->can_repeat = false;
    r->at += is_end ? 1 : 2;
    if (is_end) // a line ends before every line feed and at the end of the text
        return regex_put(r, "(?=\\n|\\z)");
    TRY(regex_put(r, "(?:"));
    TRY(put_between(r, true, !is_boundary));
    TRY(regex_put(r, "|"));
    TRY(put_between(r, false, is_boundary));
    return regex_put(r, ")");
}

// What a quantifier may follow: a class, a dot or a single character.
static Status put_atom(Rewrite *r)
{
    bool found;
    TRY(put_anchor(r, &found));
    if (found)
        return OK;
    r->can_repeat = true;
    if (*r->at == '[' || *r->at == '.') {
        r->caseless_before = '\0';
        if (*r->at == '[')
            return regex_put_class(r);
        r->at++;
        return regex_put(r, "[^\\n]"); // what PCRE2's dot excludes depends on its build
    }
    if (strchr("^]}", *r->at) != NULL)
        return regex_refuse(r, "this character unescaped is not supported");
    TRY(check_fold(r));
    TRY(regex_put_class_escape(r, &found));
    return found ? OK : regex_put_literal(r);
}

Status regex_rewrite(Bytes *out, const char *regex)
{
    Rewrite r = {.out = out, .regex = regex, .at = regex, .is_at_start = true};
    while (*r.at != '\0') {
        const char c = *r.at;
        if (strchr("|*+?{", c) != NULL)
            r.caseless_before = '\0';
        if (strncmp(r.at, "(?i)", 4) == 0) {
            TRY(put_option(&r));
        } else if (c == '(') {
            TRY(open_group(&r));
        } else if (c == ')') {
            TRY(close_group(&r));
        } else if (c == '|') {
            r.can_repeat = false;
            r.at++;
            TRY(regex_put(&r, "|"));
        } else if (strchr("*+?{", c) != NULL) {
            TRY(put_quantifier(&r));
        } else {
            TRY(put_atom(&r));
        }
        r.is_at_start = c == '|' || (c == '(' && !r.can_repeat);
    }
    // An open group would be reported by PCRE2 too, but in terms of the rewritten pattern.
    return r.depth == 0 ? OK : regex_refuse(&r, "( without )");
}
