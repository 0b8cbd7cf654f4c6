// eval/tasks/task: the texts that a model gets for a row, by both sets of rules.
#include "tests/support/testing.h"

#include "base/file.h"
#include "eval/tasks/task.h"
#include "eval/tasks/task_text.h"

#include <string.h>

typedef struct Prompt {
    json_t *json;
    TaskItem item;
} Prompt;

static void start_prompt(Prompt *prompt, const char *name, TaskRules rules, const char *text)
{
    const Task *task = task_find(name, rules);
    TaskRow row;
    *prompt = (Prompt){0};
    assert_non_null(task);
    assert_ok(json_parse(&prompt->json, text, (int64_t)strlen(text), "row"));
    assert_ok(task->read(&row, prompt->json, "row"));
    assert_ok(task->prompt(&prompt->item, &row));
}

static void end_prompt(Prompt *prompt)
{
    task_item_release(&prompt->item);
    json_decref(prompt->json);
}

static void check(const char *expected, const Bytes *got)
{
    if (got->size != (int64_t)strlen(expected) ||
        memcmp(got->data, expected, strlen(expected)) != 0)
        fail_msg("'%.*s' instead of '%s'", (int)got->size, got->data, expected);
}

static const char hellaswag[] =
    "{\"activity_label\": \"Baking\", \"ctx_a\": \"[header] Mix.\", \"ctx_b\": \"a Man\", "
    "\"endings\": [\"stirs [step] well. \", \"leaves\"], \"label\": 0}";

static void test_hellaswag_has_a_second_blank_in_the_reference(void **state)
{
    (void)state;
    Prompt prompt;
    start_prompt(&prompt, "hellaswag", TASK_RULES_REFERENCE, hellaswag);
    check("Baking: Mix. A man ", &prompt.item.contexts[0]);
    check(" stirs well. ", &prompt.item.continuations[0]);
    assert_int_equal(prompt.item.divisors[0], 12);
    end_prompt(&prompt);
    start_prompt(&prompt, "hellaswag", TASK_RULES_LM_EVAL, hellaswag);
    check("Baking: Mix. A man", &prompt.item.contexts[0]);
    check(" stirs well.", &prompt.item.continuations[0]);
    assert_int_equal(prompt.item.divisors[0], 11);
    end_prompt(&prompt);
}

static const char winogrande[] =
    "{\"sentence\": \"Ann thanked Bo as _ had helped. \", \"option1\": \"Ann\", \"option2\": "
    "\"Bo\", \"answer\": \"2\"}";

static void test_winogrande_is_scored_from_the_option_or_behind_it(void **state)
{
    (void)state;
    Prompt prompt;
    start_prompt(&prompt, "winogrande", TASK_RULES_REFERENCE, winogrande);
    assert_int_equal(prompt.item.n_contexts, 1);
    check("Ann thanked Bo as ", &prompt.item.contexts[0]);
    check("Bo had helped.", &prompt.item.continuations[1]);
    assert_int_equal(prompt.item.divisors[1], 14);
    assert_int_equal(prompt.item.gold, 1);
    end_prompt(&prompt);
    start_prompt(&prompt, "winogrande", TASK_RULES_LM_EVAL, winogrande);
    assert_int_equal(prompt.item.n_contexts, 2);
    check("Ann thanked Bo as Ann", &prompt.item.contexts[0]);
    check("Ann thanked Bo as Bo", &prompt.item.contexts[1]);
    check(" had helped.", &prompt.item.continuations[0]);
    check(" had helped.", &prompt.item.continuations[1]);
    end_prompt(&prompt);
}

static const char mmlu[] =
    "{\"question\": \" What is\\n 1 + 1? \", \"subject\": \"elementary_mathematics\", \"choices\": "
    "[\"1\", \"2\", \"3\", \"\xc3\xa9t\xc3\xa9\"], \"answer\": 1}";

static void test_mmlu_asks_for_texts_or_letters(void **state)
{
    (void)state;
    Prompt prompt;
    start_prompt(&prompt, "mmlu", TASK_RULES_REFERENCE, mmlu);
    check("The following are questions about elementary mathematics.\nQuestion:  What is\n 1 + 1? "
          "\nAnswer:",
          &prompt.item.contexts[0]);
    check(" 2", &prompt.item.continuations[1]);
    assert_int_equal(prompt.item.divisors[3], 3); // characters, not bytes
    end_prompt(&prompt);
    start_prompt(&prompt, "mmlu", TASK_RULES_LM_EVAL, mmlu);
    check("The following are multiple choice questions (with answers) about elementary "
          "mathematics.\n\nWhat is\n 1 + 1?\nA. 1\nB. 2\nC. 3\nD. \xc3\xa9t\xc3\xa9\nAnswer:",
          &prompt.item.contexts[0]);
    check(" D", &prompt.item.continuations[3]);
    end_prompt(&prompt);
    start_prompt(&prompt, "mmlu_continuation", TASK_RULES_LM_EVAL, mmlu);
    check("The following are questions (with answers) about elementary mathematics.\n\nQuestion: "
          "What is\n 1 + 1?\nAnswer:",
          &prompt.item.contexts[0]);
    check(" \xc3\xa9t\xc3\xa9", &prompt.item.continuations[3]);
    end_prompt(&prompt);
    assert_null(task_find("mmlu_continuation", TASK_RULES_REFERENCE));
}

// An item's memory serves the next row: nothing of a longer one is left.
static void test_an_item_is_used_again(void **state)
{
    (void)state;
    Prompt prompt;
    TaskRow row = {.question = "Q", .choices = {"a", "b"}, .n_choices = 2, .gold = 0};
    start_prompt(&prompt, "winogrande", TASK_RULES_LM_EVAL, winogrande);
    assert_ok(task_find("arc_easy", TASK_RULES_LM_EVAL)->prompt(&prompt.item, &row));
    assert_int_equal(prompt.item.n_contexts, 1);
    check("Question: Q\nAnswer:", &prompt.item.contexts[0]);
    check(" b", &prompt.item.continuations[1]);
    end_prompt(&prompt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hellaswag_has_a_second_blank_in_the_reference),
        cmocka_unit_test(test_winogrande_is_scored_from_the_option_or_behind_it),
        cmocka_unit_test(test_mmlu_asks_for_texts_or_letters),
        cmocka_unit_test(test_an_item_is_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
