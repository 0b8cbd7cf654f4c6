// eval/tasks/task_row: the columns of Hugging Face's data sets, and what is said of rows that do
// not have them.
#include "tests/support/testing.h"

#include "eval/tasks/task_row.h"

#include <string.h>

static json_t *json; // of the row that was read last

static Status read_row(TaskRow *out, TaskRowReader *reader, const char *text)
{
    json_decref(json);
    assert_ok(json_parse(&json, text, (int64_t)strlen(text), "row"));
    return reader(out, json, "f.jsonl:7");
}

static int release_json(void **state)
{
    (void)state;
    json_decref(json);
    json = NULL;
    return 0;
}

static void test_every_data_set_is_read(void **state)
{
    (void)state;
    TaskRow row;
    assert_ok(read_row(&row, task_row_hellaswag,
                       "{\"ind\": 3, \"activity_label\": \"Tango\", \"ctx_a\": \"A\", \"ctx_b\": "
                       "\"they\", \"endings\": [\"a\", \"b\", \"c\", \"d\"], \"label\": \"3\"}"));
    assert_string_equal(row.topic, "Tango");
    assert_string_equal(row.question, "A");
    assert_string_equal(row.more, "they");
    assert_int_equal(row.n_choices, 4);
    assert_int_equal(row.gold, 3);
    assert_ok(read_row(&row, task_row_arc,
                       "{\"question\": \"Q\", \"choices\": {\"text\": [\"a\", \"b\", \"c\", "
                       "\"d\", \"e\"], \"label\": [\"1\", \"2\", \"3\", \"4\", \"5\"]}, "
                       "\"answerKey\": 5}"));
    assert_int_equal(row.n_choices, 5);
    assert_int_equal(row.gold, 4);
    assert_ok(read_row(&row, task_row_openbookqa,
                       "{\"question_stem\": \"S\", \"choices\": {\"text\": [\"a\", \"b\"], "
                       "\"label\": [\"A\", \"B\"]}, \"answerKey\": \" B\"}"));
    assert_string_equal(row.question, "S");
    assert_int_equal(row.gold, 1);
    assert_ok(read_row(&row, task_row_piqa,
                       "{\"goal\": \"G\", \"sol1\": \"a\", \"sol2\": \"b \", \"label\": 1}"));
    assert_string_equal(row.choices[1], "b ");
    assert_int_equal(row.gold, 1);
    assert_ok(read_row(&row, task_row_winogrande,
                       "{\"sentence\": \"S _ e.\", \"option1\": \"a\", \"option2\": \"b\", "
                       "\"answer\": \"2\"}"));
    assert_int_equal(row.gold, 1);
    assert_ok(read_row(&row, task_row_mmlu,
                       "{\"question\": \"Q\", \"subject\": \"anatomy\", \"choices\": [\"a\", "
                       "\"b\", \"c\", \"d\"], \"answer\": 2.0}"));
    assert_string_equal(row.topic, "anatomy");
    assert_int_equal(row.gold, 2);
}

static void test_bad_rows_are_named(void **state)
{
    (void)state;
    static const struct {
        TaskRowReader *reader;
        const char *text, *error;
    } cases[] = {
        {task_row_piqa, "{\"sol1\": \"a\", \"sol2\": \"b\", \"label\": 0}",
         "f.jsonl:7: the column 'goal' is missing"},
        {task_row_piqa, "{\"goal\": 3, \"sol1\": \"a\", \"sol2\": \"b\", \"label\": 0}",
         "f.jsonl:7: 'goal' is not a string: 3"},
        {task_row_piqa, "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\"}",
         "f.jsonl:7: the column 'label' is missing"},
        {task_row_piqa, "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\", \"label\": -1}",
         "f.jsonl:7: 'label' has no label, as in a test split without answers"},
        {task_row_piqa, "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\", \"label\": 2}",
         "f.jsonl:7: 'label' is 2, allowed are 0 to 1"},
        {task_row_piqa, "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\", \"label\": 0.5}",
         "f.jsonl:7: 'label' is no label: 0.5"},
        {task_row_piqa, "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\", \"label\": null}",
         "f.jsonl:7: 'label' has no label"},
        {task_row_hellaswag,
         "{\"activity_label\": \"T\", \"ctx_a\": \"A\", \"ctx_b\": \"\", \"endings\": [\"a\", "
         "\"b\"], \"label\": \"\"}",
         "f.jsonl:7: 'label' has no label"},
        {task_row_hellaswag,
         "{\"activity_label\": \"T\", \"ctx_a\": \"A\", \"ctx_b\": \"\", \"endings\": \"a\", "
         "\"label\": \"1\"}",
         "f.jsonl:7: the column 'endings' is missing or is not a list"},
        {task_row_hellaswag,
         "{\"activity_label\": \"T\", \"ctx_a\": \"A\", \"ctx_b\": \"\", \"endings\": [\"a\"], "
         "\"label\": \"0\"}",
         "f.jsonl:7: 'endings' has 1 choices, allowed are 2 to 8"},
        {task_row_hellaswag,
         "{\"activity_label\": \"T\", \"ctx_a\": \"A\", \"ctx_b\": \"\", \"endings\": [\"a\", 4], "
         "\"label\": \"0\"}",
         "f.jsonl:7: item 2 of 'endings' is not a string"},
        {task_row_arc, "{\"question\": \"Q\", \"choices\": [\"a\", \"b\"], \"answerKey\": \"A\"}",
         "f.jsonl:7: the column 'choices' is missing or is not an object"},
        {task_row_arc,
         "{\"question\": \"Q\", \"choices\": {\"text\": [\"a\", \"b\"], \"label\": [\"A\"]}, "
         "\"answerKey\": \"A\"}",
         "f.jsonl:7: 'choices.label' has not as many items as 'choices.text', 2"},
        {task_row_arc,
         "{\"question\": \"Q\", \"choices\": {\"text\": [\"a\", \"b\"], \"label\": [\"A\", "
         "\"B\"]}, \"answerKey\": \"C\"}",
         "f.jsonl:7: 'answerKey' is C, which is not in 'choices.label'"},
        {task_row_openbookqa, "{\"question\": \"Q\"}",
         "f.jsonl:7: the column 'question_stem' is missing"},
        {task_row_winogrande,
         "{\"sentence\": \"S e.\", \"option1\": \"a\", \"option2\": \"b\", \"answer\": \"2\"}",
         "f.jsonl:7: 'sentence' has no '_' where an option belongs"},
        {task_row_winogrande,
         "{\"sentence\": \"S _.\", \"option1\": \"a\", \"option2\": \"b\", \"answer\": \"0\"}",
         "f.jsonl:7: 'answer' is 0, allowed are 1 to 2"},
        {task_row_mmlu,
         "{\"question\": \"Q\", \"subject\": \"s\", \"choices\": [\"a\", \"b\", \"c\"], "
         "\"answer\": 0}",
         "f.jsonl:7: 'choices' has 3 choices, allowed are 4"},
        {task_row_mmlu,
         "{\"question\": \"Q\", \"subject\": \"s\", \"choices\": [\"a\", \"b\", \"c\", \"d\"], "
         "\"answer\": \"B\"}",
         "f.jsonl:7: 'answer' is B, allowed are 0 to 3"},
    };
    TaskRow row;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_fails(BAD_INPUT, cases[i].error, read_row(&row, cases[i].reader, cases[i].text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_every_data_set_is_read, release_json),
        cmocka_unit_test_teardown(test_bad_rows_are_named, release_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
