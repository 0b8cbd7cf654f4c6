// Splitting must agree with the `tokenizers` library (0.23) on every code point, but PCRE2 knows
// the Unicode version it was built with. So the classes are rewritten before compiling: PCRE2's
// property plus the ranges that Unicode 15 to 17 added, taken from the library's own behaviour on
// all 1,112,064 characters. With a newer PCRE2 the added ranges are merely said twice.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/tokenizer_pattern.h"
#include "data/tokenizer_text.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"

#define NEW_LETTERS                                                                                \
    "\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}"               \
    "\\x{10d4a}-\\x{10d65}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}"         \
    "\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}" \
    "\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}"          \
    "\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}\\x{16d40}-\\x{16d6c}"         \
    "\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{"      \
    "1e4eb}"                                                                                       \
    "\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"

#define NEW_NUMBERS                                                                                \
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}"         \
    "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}"         \
    "\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"

#define NEW_NUMBERS_UNICODE_17 "\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}"

// Marks, digits and connectors; the new letters are word characters as well.
#define NEW_WORD_CHARS                                                                             \
    "\\x{897}\\x{cf3}\\x{ece}\\x{10d40}-\\x{10d49}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}"      \
    "\\x{11241}\\x{113b8}-\\x{113c0}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{"      \
    "113d0}"                                                                                       \
    "\\x{113d2}\\x{113e1}-\\x{113e2}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}"                    \
    "\\x{11f00}-\\x{11f01}\\x{11f03}\\x{11f34}-\\x{11f3a}\\x{11f3e}-\\x{11f42}\\x{11f50}-\\x{"     \
    "11f5a}"                                                                                       \
    "\\x{13440}\\x{13447}-\\x{13455}\\x{1611e}-\\x{16139}\\x{16d70}-\\x{16d79}"                    \
    "\\x{1ccf0}-\\x{1ccf9}\\x{1e08f}\\x{1e4ec}-\\x{1e4f9}\\x{1e5ee}-\\x{1e5ef}\\x{1e5f1}-\\x{"     \
    "1e5fa}"

static const struct {
    const char *written, *members;
} classes[] = {
    {"\\s", SPACES},
    {"\\p{L}", "\\p{L}" NEW_LETTERS},
    {"\\p{N}", "\\p{N}" NEW_NUMBERS},
    {"\\p{numeric}", "\\p{N}" NEW_NUMBERS NEW_NUMBERS_UNICODE_17},
    {"\\w", "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}" NEW_LETTERS NEW_WORD_CHARS},
};

struct Pattern {
    pcre2_code *code; // owned
};

struct PatternMatch {
    pcre2_match_data *data;       // owned
    pcre2_match_context *context; // owned
    pcre2_jit_stack *stack;       // owned; NULL where PCRE2 has no JIT
};

// Appends the escape at `p`, rewritten if it is one of the classes; *used = its length.
static Status put_escape(Bytes *out, const char *p, bool inside_class, int64_t *used)
{
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        size_t length = strlen(classes[i].written);
        if (strncmp(p, classes[i].written, length) != 0)
            continue;
        *used = (int64_t)length;
        if (!inside_class)
            TRY(bytes_append(out, "[", 1));
        TRY(bytes_append(out, classes[i].members, (int64_t)strlen(classes[i].members)));
        return inside_class ? OK : bytes_append(out, "]", 1);
    }
    if (p[1] == 'S' && !inside_class) {
        *used = 2;
        return bytes_append(out, "[^" SPACES "]", (int64_t)strlen("[^" SPACES "]"));
    }
    *used = p[1] != '\0' ? 2 : 1;
    return bytes_append(out, p, *used);
}

static Status rewrite_classes(Bytes *out, const char *pattern)
{
    bool inside_class = false;
    for (const char *p = pattern; *p != '\0';) {
        int64_t used = 1;
        if (*p == '\\') {
            TRY(put_escape(out, p, inside_class, &used));
        } else {
            if (*p == '[' || *p == ']')
                inside_class = *p == '[';
            TRY(bytes_append(out, p, 1));
        }
        p += used;
    }
    return OK;
}

Status pattern_compile(Pattern **out, const char *pattern)
{
    Status status;
    Bytes rewritten = {0};
    Pattern *made = malloc(sizeof *made);
    if (made == NULL)
        return fail(FAILED, "no memory for a split pattern");
    TRY_GOTO(free_made, rewrite_classes(&rewritten, pattern));
    int error;
    PCRE2_SIZE place;
    made->code = pcre2_compile((PCRE2_SPTR)rewritten.data, (size_t)rewritten.size,
                               PCRE2_UTF | PCRE2_UCP, &error, &place, NULL);
    if (made->code == NULL) {
        char text[160];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof text);
        status = fail(BAD_INPUT, "split pattern '%.200s' does not compile: %s", pattern, text);
        goto free_made;
    }
    pcre2_jit_compile(made->code, PCRE2_JIT_COMPLETE); // where there is none, it is interpreted
    bytes_release(&rewritten);
    *out = made;
    return OK;
free_made:
    bytes_release(&rewritten);
    free(made);
    return status;
}

void pattern_release(Pattern *pattern)
{
    if (pattern == NULL)
        return;
    pcre2_code_free(pattern->code);
    free(pattern);
}

Status pattern_match_create(PatternMatch **out)
{
    PatternMatch *match = calloc(1, sizeof *match);
    if (match == NULL)
        return fail(FAILED, "no memory for pattern matching");
    match->data = pcre2_match_data_create(1, NULL);
    match->context = pcre2_match_context_create(NULL);
    if (match->data == NULL || match->context == NULL) {
        pattern_match_release(match);
        return fail(FAILED, "no memory for pattern matching");
    }
    match->stack = pcre2_jit_stack_create(32 << 10, 8 << 20, NULL);
    if (match->stack != NULL)
        pcre2_jit_stack_assign(match->context, NULL, match->stack);
    *out = match;
    return OK;
}

void pattern_match_release(PatternMatch *match)
{
    if (match == NULL)
        return;
    pcre2_jit_stack_free(match->stack);
    pcre2_match_context_free(match->context);
    pcre2_match_data_free(match->data);
    free(match);
}

Status pattern_find(const Pattern *pattern, PatternMatch *match, const char *text, int64_t size,
                    int64_t from, int64_t *start, int64_t *end)
{
    int found = pcre2_match(pattern->code, (PCRE2_SPTR)text, (size_t)size, (size_t)from,
                            PCRE2_NO_UTF_CHECK, match->data, match->context);
    if (found == PCRE2_ERROR_NOMATCH) {
        *start = *end = -1;
        return OK;
    }
    if (found < 0) {
        char reason[160];
        pcre2_get_error_message(found, (PCRE2_UCHAR *)reason, sizeof reason);
        return fail(FAILED, "split pattern failed at byte %lld of a text: %s", (long long)from,
                    reason);
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(match->data);
    *start = (int64_t)place[0];
    *end = (int64_t)place[1];
    return OK;
}
