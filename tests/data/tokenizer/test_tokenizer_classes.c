// data/tokenizer/tokenizer_regex and tokenizer_unicode: every class of characters as the library
// has it, on all 1,112,064 code points. tests/golden/tokenizer/make_classes_golden.py asked the
// library.
#include "tests/support/testing.h"

#include "base/json.h"
#include "data/tokenizer/tokenizer_pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_CODES = 0x110000, FIRST_SURROGATE = 0xD800, FIRST_BEHIND = 0xE000 };

// Every character, in their order, and where each begins.
static char *text;
static int64_t text_bytes;
static int32_t code_at[4 * N_CODES]; // by byte; -1 inside a character

static int put_utf8(char *out, uint32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const int n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)((0xF00 >> n & 0xFF) | code);
    return n;
}

static int make_text(void **state)
{
    (void)state;
    text = malloc(4 * (size_t)N_CODES);
    if (text == NULL)
        return -1;
    memset(code_at, -1, sizeof code_at);
    for (int32_t code = 0; code < N_CODES; code++) {
        if (code == FIRST_SURROGATE)
            code = FIRST_BEHIND;
        code_at[text_bytes] = code;
        text_bytes += put_utf8(text + text_bytes, (uint32_t)code);
    }
    return 0;
}

static int release_text(void **state)
{
    (void)state;
    free(text);
    return 0;
}

// is_in [N_CODES]: what the ranges "9-d,20" say.
static void read_ranges(bool *is_in, const char *ranges)
{
    memset(is_in, 0, N_CODES);
    while (*ranges != '\0') {
        char *end;
        const long from = strtol(ranges, &end, 16),
                   to = *end == '-' ? strtol(end + 1, &end, 16) : from;
        assert_in_range(from, 0, to);
        assert_in_range(to, from, N_CODES - 1);
        memset(is_in + from, 1, (size_t)(to - from + 1));
        ranges = end + (*end == ',');
    }
}

// is_in [N_CODES]: what the pattern, of one character, matches.
static void find_all(bool *is_in, const Pattern *pattern)
{
    PatternMatch *match;
    assert_ok(pattern_match_create(&match));
    memset(is_in, 0, N_CODES);
    for (int64_t at = 0, start, end; at < text_bytes; at = end) {
        assert_ok(pattern_find(pattern, match, text, text_bytes, at, &start, &end));
        if (start < 0)
            break;
        assert_true(code_at[start] >= 0 && (end == text_bytes || code_at[end] >= 0));
        is_in[code_at[start]] = true;
    }
    pattern_match_release(match);
}

static void check_class(const char *name, const char *ranges, Pattern *pattern)
{
    static bool expected[N_CODES], got[N_CODES];
    read_ranges(expected, ranges);
    find_all(got, pattern);
    pattern_release(pattern);
    int n_wrong = 0;
    for (int32_t code = 0; code < N_CODES; code++)
        if (got[code] != expected[code] && n_wrong++ < 5)
            print_error("%s: U+%04X is %s\n", name, (unsigned)code,
                        got[code] ? "in it" : "not in it");
    if (n_wrong > 0)
        fail_msg("%s: %d characters differ from the library's", name, n_wrong);
}

static void test_classes_are_the_librarys(void **state)
{
    (void)state;
    json_t *golden, *ranges;
    const char *name;
    int n_classes = 0;
    assert_ok(json_read(&golden, GOLDEN_DIR "/tokenizer/classes.json"));
    json_object_foreach(golden, name, ranges)
    {
        Pattern *pattern;
        if (strcmp(name, "numeric") == 0)
            assert_ok(pattern_compile_class(&pattern, CLASS_NUMERIC));
        else
            assert_ok(pattern_compile_regex(&pattern, name));
        check_class(name, json_string_value(ranges), pattern);
        n_classes++;
    }
    assert_true(n_classes > 60);
    json_decref(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes_are_the_librarys),
    };
    return cmocka_run_group_tests(tests, make_text, release_text);
}
