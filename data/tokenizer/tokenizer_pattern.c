// PCRE2 with its JIT compiler: about 30 MB/s of text for GPT-2's pattern, 5 MB/s when interpreted.
// A compiled pattern is read only and shared; what a match writes into belongs to one thread.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/tokenizer/tokenizer_pattern.h"
#include "data/tokenizer/tokenizer_regex.h"
#include "data/tokenizer/tokenizer_text.h"
#include "data/tokenizer/tokenizer_unicode.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

struct Pattern {
    pcre2_code *code; // owned
};

struct PatternMatch {
    pcre2_match_data *data;       // owned
    pcre2_match_context *context; // owned
    pcre2_jit_stack *stack;       // owned; NULL where PCRE2 has no JIT
};

// `written` is the pattern as errors name it, text [size] what PCRE2 is given.
static Status compile(Pattern **out, const char *written, const char *text, int64_t size,
                      uint32_t options)
{
    Status status;
    int error;
    PCRE2_SIZE place;
    uint32_t matches_nothing = 0;
    Pattern *made = malloc(sizeof *made);
    if (made == NULL)
        return fail(FAILED, "no memory for a split pattern");
    made->code = pcre2_compile((PCRE2_SPTR)text, (size_t)size, options, &error, &place, NULL);
    if (made->code == NULL) {
        char reason[160];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)reason, sizeof reason);
        status = fail(BAD_INPUT, "pattern '%.200s' does not compile: %s", written, reason);
        goto free_made;
    }
    // An empty match would be no progress, and the two engines disagree about where the next
    // begins.
    pcre2_pattern_info(made->code, PCRE2_INFO_MATCHEMPTY, &matches_nothing);
    if (matches_nothing) {
        status = fail(BAD_INPUT,
                      "pattern '%.200s' can match the empty text, which is not supported", written);
        goto free_code;
    }
    pcre2_jit_compile(made->code, PCRE2_JIT_COMPLETE); // where there is none, it is interpreted
    *out = made;
    return OK;
free_code:
    pcre2_code_free(made->code);
free_made:
    free(made);
    return status;
}

Status pattern_compile_regex(Pattern **out, const char *regex)
{
    Status status;
    Bytes rewritten = {0};
    TRY_GOTO(release, regex_rewrite(&rewritten, regex));
    status = compile(out, regex, rewritten.data != NULL ? rewritten.data : "", rewritten.size,
                     PCRE2_UTF | PCRE2_UCP);
release:
    bytes_release(&rewritten);
    return status;
}

// LITERAL: characters such as . or ( stand for themselves.
Status pattern_compile_text(Pattern **out, const char *text)
{
    return compile(out, text, text, (int64_t)strlen(text), PCRE2_UTF | PCRE2_LITERAL);
}

Status pattern_compile_class(Pattern **out, CharClass class)
{
    const char *text = class == CLASS_NUMERIC ? "[" NUMERIC "]" : "[" WORD_CHARS "]";
    return compile(out, text, text, (int64_t)strlen(text), PCRE2_UTF | PCRE2_UCP);
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
    // The default of 32 KiB is too little for patterns that backtrack over long runs of spaces.
    match->stack = pcre2_jit_stack_create(32 << 10, 8 << 20, NULL);
    if (match->stack != NULL)
        pcre2_jit_stack_assign(match->context, NULL, match->stack);
    *out = match;
    return OK;
}

// PCRE2's own free functions accept NULL.
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
    // The text was validated as a whole before: the check would cost O(n) per match, O(n^2) per
    // text.
    int found = pcre2_match(pattern->code, (PCRE2_SPTR)text, (size_t)size, (size_t)from,
                            PCRE2_NO_UTF_CHECK, match->data, match->context);
    if (found == PCRE2_ERROR_NOMATCH) {
        *start = *end = -1;
        return OK;
    }
    if (found < 0) { // it backtracked too long or too deep: the text fails, not the process
        char reason[160];
        pcre2_get_error_message(found, (PCRE2_UCHAR *)reason, sizeof reason);
        return fail(FAILED, "pattern failed at byte %lld of a text: %s", (long long)from, reason);
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(match->data);
    *start = (int64_t)place[0];
    *end = (int64_t)place[1];
    return OK;
}
