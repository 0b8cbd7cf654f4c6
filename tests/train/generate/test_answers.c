// train/generate/answers: whatever the order in which answers come, they are printed in theirs, and
// the one whose turn it is as it comes.
#include "tests/support/testing.h"

#include "base/json.h"
#include "train/generate/answers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Answers of so many prompts, printed into memory.
typedef struct Printer {
    PromptList prompts;
    Answers answers;
    FILE *out;
    char *text;
    size_t size;
} Printer;

static const char *const stops[] = {"END"};

static void start(Printer *printer, int n_prompts, int n_samples, bool as_json)
{
    static const char lines[] = "\"a\"\n{\"prompt\": \"b\", \"id\": \"second\"}\n\"c\"\n";
    *printer = (Printer){0};
    const int64_t size = n_prompts == 1 ? 3 : (int64_t)strlen(lines);
    assert_ok(prompts_parse_jsonl(&printer->prompts, lines, size, "x"));
    printer->out = open_memstream(&printer->text, &printer->size);
    const AnswersOptions options = {.out = printer->out,
                                    .prompts = &printer->prompts,
                                    .n_samples = n_samples,
                                    .as_json = as_json,
                                    .stops = stops};
    assert_ok(answers_start(&printer->answers, &options));
}

static void say(Printer *printer, int64_t index, const char *text)
{
    assert_ok(answers_add_text(&printer->answers, index, text, (int64_t)strlen(text)));
}

static void end(Printer *printer, int64_t index)
{
    const int32_t ids[] = {4, 5};
    const AnswerEnding ending = {.end = ANSWER_STOP, .stop = 0, .ids = ids, .n_ids = 2};
    assert_ok(answers_end(&printer->answers, index, &ending));
}

static void expect(Printer *printer, const char *text)
{
    fflush(printer->out);
    assert_string_equal(printer->text, text);
}

static void stop(Printer *printer)
{
    answers_release(&printer->answers);
    prompts_release(&printer->prompts);
    fclose(printer->out);
    free(printer->text);
}

static void test_one_answer_is_streamed(void **state)
{
    (void)state;
    Printer printer;
    start(&printer, 1, 1, false);
    say(&printer, 0, "Once");
    expect(&printer, "Once");
    say(&printer, 0, " upon");
    expect(&printer, "Once upon");
    end(&printer, 0);
    expect(&printer, "Once upon\n");
    stop(&printer);
    start(&printer, 1, 1, false);
    say(&printer, 0, "line\n");
    end(&printer, 0);
    expect(&printer, "line\n"); // no second line end
    stop(&printer);
    start(&printer, 1, 1, false);
    end(&printer, 0);
    expect(&printer, "\n");
    stop(&printer);
}

static void test_samples_wait_for_their_turn(void **state)
{
    (void)state;
    Printer printer;
    start(&printer, 1, 3, false);
    say(&printer, 1, "B");
    say(&printer, 2, "C");
    end(&printer, 2);
    say(&printer, 0, "A");
    expect(&printer, "--- answer 1 of 3 ---\nA");
    end(&printer, 0);
    expect(&printer, "--- answer 1 of 3 ---\nA\n--- answer 2 of 3 ---\nB");
    say(&printer, 1, "b");
    end(&printer, 1);
    expect(&printer, "--- answer 1 of 3 ---\nA\n--- answer 2 of 3 ---\nBb\n"
                     "--- answer 3 of 3 ---\nC\n");
    stop(&printer);
}

static void test_json_has_a_line_per_answer_in_order(void **state)
{
    (void)state;
    Printer printer;
    start(&printer, 3, 2, true);
    for (int64_t i = 5; i > 0; i--) {
        say(&printer, i, "\"x\"\n");
        end(&printer, i);
    }
    expect(&printer, "");
    end(&printer, 0);
    fflush(printer.out);
    char *line = printer.text;
    for (int64_t i = 0; i < 6; i++) {
        char *line_end = strchr(line, '\n');
        json_t *object;
        assert_ok(json_parse(&object, line, line_end - line, "answer"));
        assert_int_equal(json_integer_value(json_object_get(object, "prompt")), i / 2);
        assert_int_equal(json_integer_value(json_object_get(object, "sample")), i % 2);
        assert_string_equal(json_string_value(json_object_get(object, "text")),
                            i > 0 ? "\"x\"\n" : "");
        assert_string_equal(json_string_value(json_object_get(object, "finish_reason")), "stop");
        assert_string_equal(json_string_value(json_object_get(object, "stop")), "END");
        assert_int_equal(json_array_size(json_object_get(object, "ids")), 2);
        const char *id = json_string_value(json_object_get(object, "id"));
        assert_true(i / 2 == 1 ? strcmp(id, "second") == 0 : id == NULL);
        json_decref(object);
        line = line_end + 1;
    }
    assert_int_equal(*line, '\0');
    stop(&printer);
}

static void test_what_is_done_is_printed_at_the_end(void **state)
{
    (void)state;
    Printer printer;
    start(&printer, 1, 3, false);
    say(&printer, 2, "C");
    end(&printer, 2);
    expect(&printer, "");
    assert_ok(answers_finish(&printer.answers));
    expect(&printer, "--- answer 3 of 3 ---\nC\n");
    stop(&printer);
}

static void test_a_full_disk_is_told(void **state)
{
    (void)state;
    Printer printer;
    start(&printer, 1, 1, false);
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    printer.answers.options.out = full;
    assert_fails(FAILED, "standard output cannot be written: No space left",
                 answers_add_text(&printer.answers, 0, "text", 4));
    fclose(full);
    stop(&printer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_answer_is_streamed),
        cmocka_unit_test(test_samples_wait_for_their_turn),
        cmocka_unit_test(test_json_has_a_line_per_answer_in_order),
        cmocka_unit_test(test_what_is_done_is_printed_at_the_end),
        cmocka_unit_test(test_a_full_disk_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
