// data/tokenizer/tokenizer_pattern and tokenizer_regex: what patterns match, and which are refused.
#include "tests/support/testing.h"

#include "data/tokenizer/tokenizer_pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void assert_first_match(const char *regex, const char *text, int64_t start, int64_t end)
{
    Pattern *pattern;
    PatternMatch *match;
    int64_t got_start, got_end;
    assert_ok(pattern_compile_regex(&pattern, regex));
    assert_ok(pattern_match_create(&match));
    assert_ok(pattern_find(pattern, match, text, (int64_t)strlen(text), 0, &got_start, &got_end));
    if (got_start != start || (start >= 0 && got_end != end))
        fail_msg("'%s' in '%s': %lld to %lld, expected %lld to %lld", regex, text,
                 (long long)got_start, (long long)got_end, (long long)start, (long long)end);
    pattern_match_release(match);
    pattern_release(pattern);
}

// Expected values are those of re.finditer's counterpart in the library: Split(Regex(...)).
static void test_regexes_match_as_in_oniguruma(void **state)
{
    (void)state;
    static const struct {
        const char *regex, *text;
        int64_t start, end;
    } cases[] = {
        {"(?i:'s|'ll)", "x'\u017F", 1, 4},
        {"(?i:k)", "\u212A", 0, 3},
        {"'(?i:[sdmt]|ll)", "a'LL", 1, 4},
        {"\\s+", "a\u180E \n", 4, 6}, // no space since Unicode 6.3
        {"[^\\s\\p{L}]", "a \u180E", 2, 5},
        {"\\S", " \u00A0x", 3, 4},
        {"[\\S\\n]{2}", " \nx", 1, 3},
        {"\\p{N}{1,3}", "a12345", 1, 4},
        {"\\p{N}{1,3}?", "a12345", 1, 2},
        {"\\d", "\u00BD\u0663", 2, 4},
        {"\\P{L}", "ab1", 2, 3},
        {"\\p{^N}", "12a", 2, 3},
        {"\\p{L}", "\U00031350", 0, 4}, // newer than PCRE2's Unicode 14
        {"a.", "a\na\r", 2, 4},
        {"\\x41|\\x{e9}|\\u4e2D", "\u4E2D", 0, 3},
        {"[\\-+*/a-c]", "z-", 1, 2},
        {"[a-]+", "x-a", 1, 3},
        {"\\v", "\n\v", 1, 2},
        {"(?<=a)b(?!c)", "bcabcabd", 6, 7},
        {"(?>a+)b|a", "aac", 0, 1},
        {"a++b|c", "aac", 2, 3},
        {"\\[\\^\\$\\.\\{\\}\\|", "[^$.{}|", 0, 7},
        {"\u00E9|\u4E2D+", "x\u4E2D\u4E2D", 1, 7},
        {"\\p{Lu}?\\p{Ll}+|.", "1Ab", 0, 1},
        {"\\p{Lu}?\\p{Ll}+", "1AbC", 1, 3},
        {"\\P{Lu}+", "AbC", 1, 2},
        {"[\\p{Lt}\\p{Lm}]+", "a\u01C5\u02B0b", 1, 5},
        {"\\p{Lo}+", "a\u4E2D\u05D0b", 1, 6},
        {"\\p{M}+", "e\u0301\u0897x", 1, 6}, // U+0897 is of Unicode 16
        {"\\p{P}+", "$a!?", 2, 4},
        {"\\p{S}+", "!$+\u2429a", 1, 6},
        {"\\w+", "-a_1\u00B2\u0301-", 1, 8},
        {"\\w+", "\u200Ca", 3, 4}, // Rust's \w has U+200C
        {"[^\\w\\s]+", "a -!b", 2, 4},
        {"\\W+", "a -!b", 1, 4},
        {"[\\Wx]+", "a+xb", 1, 3},
        {"[^\\P{L}b]+", "1ba\u4E2D", 2, 6},
        {"[a[^b-z]]", "ba", 1, 2},
        {"[a-z&&[^aeiou]&&[^x-z]]+", "axbcde", 2, 5},
        {"[^a-z&&[^aeiou]]+", "bcaeb", 2, 4},
        {"[[a][b]]{2}", "abc", 0, 2},
        {"(?<=[a-c&&[^b]])x", "bxax", 3, 4},
        {"[a&b]+", "&a", 0, 2},
        {"\\p{Han}+", "\u3042\u4E2D\u3005\u3001", 3, 9}, // U+3001 is Han by extension only
        {"[\\p{Hiragana}\\p{Katakana}]+", "\u4E2D\u3042\u30A2\u30FC", 3, 9},
        {"\\p{Hangul}+", "a\uD55C\uAE00", 1, 7},
        {"\\d{1,3}(?=(?:\\d{3})*\\b)", "1234567", 0, 1},
        {"\\bb", "ab b", 3, 4},
        {"\\Bb", "b ab", 3, 4},
        {"a\\b", "aa\u0301a", 4, 5},
        {"\\s+$", "x  \n\n y \n", 1, 4},
        {"a$", "ab\na", 3, 4},
        {"(?i)'s|'t| ?\\p{L}+", "1'S", 1, 3},
        {"x|(?i)b|c", "XC", 1, 2},
        {"((?i)a|b)c", "BCAc", 2, 4},
        {"x", "abc", -1, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_first_match(cases[i].regex, cases[i].text, cases[i].start, cases[i].end);
}

static void test_what_the_engines_may_read_differently_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *regex, *part;
    } refused[] = {
        {"^a", "this character unescaped is not supported at byte 0 ('^a')"},
        {"a]", "this character unescaped"},
        {"\\Gword", "this escape is not supported at byte 0 ('\\Gword')"},
        {"[\\b]", "this escape"},
        {"\\b+", "this repetition"},
        {"$*", "this repetition"},
        {"\\P{^L}", "this escape"},
        {"(?i:[\\W])", "a negated property in [] inside (?i:)"},
        {"(?i:[a[b]])", "a class inside a class inside (?i:)"},
        {"(?i:[a&&b])", "&& inside (?i:)"},
        {"(?i:\\p{Lu})", "upper or lower case inside (?i:)"},
        {"\\h", "this escape"},
        {"\\R", "this escape"},
        {"(a)\\1", "this escape is not supported at byte 3"},
        {"a\\", "this escape"},
        {"\\p{Greek}", "this escape"},
        {"\\p{L", "this escape"},
        {"[a&&]", "] as the first of []"},
        {"[&&a]", "&& without a left side is not supported at byte 1 ('&&a]')"},
        {"[a&&&&b]", "&& without a left side"},
        {"[a-&&b]", "this end of a range"},
        {"[a&&-&&b]", "this - inside []"},
        {"[[:alpha:]]", "a class by name inside []"},
        {"[]a]", "] as the first of []"},
        {"[a[]b]]", "] as the first of []"},
        {"[a", "[ without ]"},
        {"[a[b]", "[ without ]"},
        {"[a&&", "[ without ]"},
        {"[\\s-a]", "this - inside []"},
        {"[a-\\s]", "this end of a range"},
        {"[a-", "this end of a range"},
        {"[z-a]", "does not compile"},
        {"a(?i)b", "(?i) behind something else"},
        {"(?-i)a", "this kind of group"},
        {"(?P<n>a)", "this kind of group"},
        {"(?#note)a", "this kind of group"},
        {"(*ACCEPT)", "this kind of group"},
        {"(?i:ss)", "these two letters inside (?i:)"},
        {"(?i:S(?:t))", "these two letters inside (?i:)"},
        {"(?i:\u00E9)", "beyond ASCII inside (?i:)"},
        {"(?i:[^a])", "[^ inside (?i:)"},
        {"(?i:\\x73)", "by number inside (?i:)"},
        {"(?i:s{2})", "this { is not supported"},
        {"\\xE9", "this number of a character"},
        {"\\x{110000}", "this number of a character"},
        {"\\uD800", "this number of a character"},
        {"\\u12", "this number of a character"},
        {"(a", "( without )"},
        {"a)", ") without ("},
        {"*a", "this repetition"},
        {"a**", "this repetition"},
        {"a|+", "this repetition"},
        {"(?=a)+", "this repetition"},
        {"a{,3}", "this { is not supported"},
        {"a{3,2}", "this { is not supported"},
        {"a{1001}", "this { is not supported"},
        {"a{99999999999999999999}", "this { is not supported"},
        {"a{2", "this { is not supported"},
        {"a{2}?", "after these counts"},
        {"a{1,2}+", "after these counts"},
        {"a*", "can match the empty text"},
        {"(?=a)", "can match the empty text"},
        {"(?<=a+)b", "does not compile: lookbehind"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        Pattern *pattern;
        assert_fails(BAD_INPUT, refused[i].part, pattern_compile_regex(&pattern, refused[i].regex));
    }
}

static void test_groups_nest_to_a_bound(void **state)
{
    (void)state;
    char regex[160];
    for (int depth = 31; depth <= 32; depth++) {
        int n = 0;
        for (int i = 0; i < depth; i++)
            regex[n++] = '(';
        regex[n++] = 'a';
        for (int i = 0; i < depth; i++)
            regex[n++] = ')';
        regex[n] = '\0';
        Pattern *pattern;
        if (depth == 31) {
            assert_ok(pattern_compile_regex(&pattern, regex));
            pattern_release(pattern);
        } else {
            assert_fails(BAD_INPUT, "more than 31 groups", pattern_compile_regex(&pattern, regex));
        }
    }
}

static void test_classes_nest_to_a_bound(void **state)
{
    (void)state;
    for (int depth = 32; depth <= 33; depth++) {
        char regex[80] = "";
        memset(regex, '[', (size_t)depth);
        regex[depth] = 'a';
        memset(regex + depth + 1, ']', (size_t)depth);
        if (depth == 32)
            assert_first_match(regex, "ba", 1, 2);
        else
            assert_fails(BAD_INPUT, "more than 32 classes",
                         pattern_compile_regex(&(Pattern *){NULL}, regex));
    }
}

static void test_texts_are_not_read_as_regexes(void **state)
{
    (void)state;
    Pattern *pattern;
    PatternMatch *match;
    int64_t start, end;
    assert_ok(pattern_compile_text(&pattern, "a.(\\"));
    assert_ok(pattern_match_create(&match));
    assert_ok(pattern_find(pattern, match, "abca.(\\", 7, 0, &start, &end));
    assert_int_equal(start, 3);
    assert_int_equal(end, 7);
    pattern_match_release(match);
    pattern_release(pattern);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regexes_match_as_in_oniguruma),
        cmocka_unit_test(test_what_the_engines_may_read_differently_is_refused),
        cmocka_unit_test(test_groups_nest_to_a_bound),
        cmocka_unit_test(test_classes_nest_to_a_bound),
        cmocka_unit_test(test_texts_are_not_read_as_regexes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
