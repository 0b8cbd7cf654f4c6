// eval/tasks/task_text: what Python's str methods and HellaSwag's cleaning make of texts. What is
// expected was computed by Python 3.11.
#include "tests/support/testing.h"

#include "eval/tasks/task_text.h"

#include <string.h>

static void check(const char *expected, const Bytes *got)
{
    assert_int_equal(got->size, strlen(expected));
    assert_memory_equal(got->data != NULL ? got->data : "", expected, strlen(expected));
}

static void check_span(const char *expected, TextSpan got)
{
    assert_int_equal(got.size, strlen(expected));
    assert_memory_equal(got.text, expected, strlen(expected));
}

static void test_strip_takes_what_python_calls_space(void **state)
{
    (void)state;
    const char *spaced = " \t\n\x1c\xc2\xa0\xe3\x80\x80"
                         "a b\xe2\x80\xa8\x1f\r ";
    check_span("a b", task_text_strip(task_text_span(spaced)));
    check_span("a\xe2\x80\x8b", task_text_strip_end(task_text_span("a\xe2\x80\x8b ")));
    check_span("", task_text_strip(task_text_span(" \n ")));
    check_span(" a", task_text_strip_end(task_text_span(" a  ")));
}

static void test_characters_are_code_points(void **state)
{
    (void)state;
    assert_int_equal(task_text_characters(task_text_span("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80")),
                     4);
    assert_int_equal(task_text_characters(task_text_span("")), 0);
}

static void test_capitalized_lowers_all_but_the_first(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"the Man IN Red", "The man in red"},
        {"\xc3\xa9T\xc3\x89", "\xc3\x89t\xc3\xa9"},
        {"\xc7\x86UNGLA", "\xc7\x85ungla"}, // a digraph has a title case of its own
        {"3 Dogs", "3 dogs"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Bytes out = {0};
        assert_ok(task_text_append_capitalized(&out, task_text_span(cases[i][0])));
        check(cases[i][1], &out);
        bytes_release(&out);
    }
}

static void test_clean_drops_wikihow_marks(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"Bake [header] How to [title] Mix.", "Bake How to. Mix."},
        {"a [one] [two] b", "a  b"},
        {"a[b[c]d]e", "ad]e"},
        {"a [b\nc] d", "a [b\nc] d"},
        {"a    b", "a  b"},
        {"[", "["},
        {"[a[b\n[c][d", "[a[b\n[d"},
        {"[all]", ""},
        {" [title]", ". "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Bytes out = {0};
        assert_ok(task_text_append_clean(&out, task_text_span(cases[i][0])));
        check(cases[i][1], &out);
        bytes_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strip_takes_what_python_calls_space),
        cmocka_unit_test(test_characters_are_code_points),
        cmocka_unit_test(test_capitalized_lowers_all_but_the_first),
        cmocka_unit_test(test_clean_drops_wikihow_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
