// eval/tasks/task_set and task_request: files of rows, which of them are evaluated, what ids their
// texts become, and the scores that follow from log-likelihoods.
#include "tests/support/testing.h"

#include "eval/tasks/task_file.h"
#include "eval/tasks/task_set.h"
#include "tests/support/testing_compress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Tokenizer *tokenizer; // of the demo: byte-level BPE, no token before a text

static int load_tokenizer(void **state)
{
    (void)state;
    return tokenizer_load(&tokenizer, CONFIGS_DIR "/demo/model") == OK ? 0 : -1;
}

static int release_tokenizer(void **state)
{
    (void)state;
    tokenizer_release(tokenizer);
    return 0;
}

static TaskEncoding encoding(int max_length)
{
    return (TaskEncoding){.tokenizer = tokenizer,
                          .model = "MODEL",
                          .vocab_size = tokenizer_vocab_size(tokenizer),
                          .max_length = max_length,
                          .begin_id = -1};
}

static const char *write_text(const char *name, const char *text)
{
    const char *path = testing_path(testing_dir(), name);
    assert_ok(file_write(path, text, (int64_t)strlen(text)));
    return path;
}

#define PIQA(goal, label)                                                                          \
    "{\"goal\": \"" goal "\", \"sol1\": \"first\", \"sol2\": \"the second\", \"label\": " label    \
    "}\n"

static const Task *piqa(void)
{
    return task_find("piqa", TASK_RULES_LM_EVAL);
}

// ---- rows
// ----------------------------------------------------------------------------------------

static void test_the_first_rows_are_evaluated(void **state)
{
    (void)state;
    TaskSet set;
    const char *path =
        write_text("piqa.jsonl", PIQA("one", "0") "\n" PIQA("two", "\"1\"") PIQA("three", "1"));
    assert_ok(task_set_read(&set, piqa(), path, 0));
    assert_int_equal(set.n_samples, 3);
    const TaskEncoding whole = encoding(512);
    assert_ok(task_set_encode(&set, &whole, 1, 2));
    assert_int_equal(set.samples[1].gold, 1);
    assert_int_equal(set.samples[2].gold, 1); // of another rank's sample, too
    task_set_release(&set);
    assert_ok(task_set_read(&set, piqa(), path, 2));
    assert_int_equal(set.n_rows, 3);
    assert_int_equal(set.n_samples, 2);
    assert_int_equal(set.samples[1].row, 1);
    task_set_release(&set);
    assert_ok(task_set_read(&set, piqa(), path, 4));
    assert_int_equal(set.n_samples, 3);
    task_set_release(&set);
}

// Plain files come before compressed ones, and the reference's validation split before the test's.
static void test_the_file_of_a_task_is_found(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    const Task *task = task_find("openbookqa", TASK_RULES_REFERENCE);
    const char *const names[] = {"openbookqa.jsonl.zst", "openbookqa.jsonl",
                                 "openbookqa_validation.jsonl.gz"};
    const char *dir = testing_dir();
    assert_false(task_file_find(path, dir, task));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *written = testing_path(dir, names[i]);
        assert_ok(file_write(written, "", 0));
        assert_true(task_file_find(path, dir, task));
        assert_string_equal(path, written);
    }
}

// Of 100 rows and of their first 10, on one rank and on four; a set has what was expected of it
// within a factor of 1.5.
static void test_memory_is_known_before_the_rows_are_read(void **state)
{
    (void)state;
    char *text = calloc(100, 256);
    for (int i = 0; i < 100; i++)
        sprintf(text + strlen(text),
                PIQA("what to do with the old chairs in the garden of number %d", "0"), i);
    const char *path = write_text("piqa.jsonl", text);
    for (int limit = 0; limit <= 10; limit += 10)
        for (int n_ranks = 1; n_ranks <= 4; n_ranks += 3) {
            TaskRows rows;
            TaskSet set;
            const TaskEncoding whole = encoding(512);
            assert_ok(task_file_measure(&rows, path, limit));
            assert_int_equal(rows.n, limit == 0 ? 100 : 10);
            assert_ok(task_set_read(&set, piqa(), path, limit));
            assert_ok(task_set_encode(&set, &whole, 0, n_ranks));
            const double taken = (double)set.n_samples * sizeof(TaskSample) +
                                 (double)set.n_own * sizeof(TaskQuestion) +
                                 (double)set.ids.count * sizeof(int32_t);
            const double expected = (double)task_file_memory(&rows, n_ranks);
            assert_true(taken < 1.5 * expected && expected < 1.5 * taken);
            assert_true(set.own[0].longest < 2 * task_file_longest(&rows));
            task_set_release(&set);
        }
    TaskRows rows;
    assert_fails(BAD_INPUT, "absent/piqa.jsonl",
                 task_file_measure(&rows, testing_absent("piqa.jsonl"), 0));
    free(text);
}

// Seven rows of three subjects, of which three are taken: every second.
static void test_rows_with_subjects_are_taken_at_even_distances(void **state)
{
    (void)state;
    static const char *const subjects[] = {"a_b", "a_b", "c", "c", "c", "d", "d"};
    TaskSet set;
    char text[2048] = "";
    for (int i = 0; i < 7; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text),
                 "{\"question\": \"q\", \"subject\": \"%s\", \"choices\": [\"1\", \"2\", \"3\", "
                 "\"4\"], \"answer\": %d}\n",
                 subjects[i], i % 4);
    const char *path = write_text("mmlu.jsonl", text);
    assert_ok(task_set_read(&set, task_find("mmlu", TASK_RULES_REFERENCE), path, 3));
    assert_int_equal(set.n_groups, 3);
    assert_string_equal(set.groups[0], "a_b");
    assert_int_equal(set.group_rows[1], 3);
    assert_int_equal(set.n_samples, 3);
    const TaskEncoding whole = encoding(512);
    assert_ok(task_set_encode(&set, &whole, 0, 1));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(set.samples[i].row, 2 * i);
        assert_int_equal(set.samples[i].group, i == 0 ? 0 : 1);
    }
    task_set_release(&set);
}

static void test_bad_files_are_named_with_the_line(void **state)
{
    (void)state;
    TaskSet set;
    const char *path = write_text("piqa.jsonl", "");
    assert_fails(BAD_INPUT, "piqa.jsonl: has no rows", task_set_read(&set, piqa(), path, 0));
    path = write_text("piqa.jsonl", PIQA("a", "0") "\n" PIQA("b", "7"));
    assert_fails(BAD_INPUT, "piqa.jsonl:3: 'label' is 7", task_set_read(&set, piqa(), path, 0));
    path = write_text("piqa.jsonl", PIQA("a", "0") "{\"goal\": ");
    assert_fails(BAD_INPUT, "piqa.jsonl:2:", task_set_read(&set, piqa(), path, 0));
    path = write_text("piqa.jsonl", PIQA("a", "0") "[1]\n");
    assert_fails(BAD_INPUT, "piqa.jsonl:2: is not a JSON object",
                 task_set_read(&set, piqa(), path, 0));
    assert_fails(BAD_INPUT, "absent/piqa.jsonl: ",
                 task_set_read(&set, piqa(), testing_absent("piqa.jsonl"), 0));
}

static void test_a_truncated_gz_is_refused(void **state)
{
    (void)state;
    TaskSet set;
    FileMap map;
    const char *whole = testing_path(testing_dir(), "piqa.jsonl.gz");
    const char *part = testing_path(testing_dir(), "part.jsonl.gz");
    const char rows[] = PIQA("a", "0") PIQA("b", "1");
    testing_append_gzip(whole, rows, strlen(rows));
    assert_ok(task_set_read(&set, piqa(), whole, 0));
    assert_int_equal(set.n_samples, 2);
    task_set_release(&set);
    assert_ok(file_map(&map, whole));
    assert_ok(file_write(part, map.bytes, map.size_bytes - 12));
    file_unmap(&map);
    assert_fails(BAD_INPUT,
                 "part.jsonl.gz: cannot be read: ", task_set_read(&set, piqa(), part, 0));
}

// ---- ids
// -----------------------------------------------------------------------------------------

// What the tokenizer makes of a text.
static void check_ids(const TokenBuffer *got, int64_t first, const char *text)
{
    TokenBuffer expected = {0};
    assert_ok(tokenizer_encode(tokenizer, &expected, text, (int64_t)strlen(text), false));
    assert_int_equal(got->count - first, expected.count);
    assert_memory_equal(got->ids + first, expected.ids, (size_t)expected.count * sizeof(int32_t));
    token_buffer_release(&expected);
}

static void test_white_space_goes_to_the_continuation(void **state)
{
    (void)state;
    TaskRequest request = {0};
    const TaskEncoding whole = encoding(512);
    assert_ok(task_request_context(&request, &whole, task_text_span("Once upon \n"), "row"));
    assert_ok(task_request_continue(&request, &whole, task_text_span("a time"), "row"));
    check_ids(&request.ids, 0, "Once upon \na time");
    check_ids(&request.context, 0, "Once upon");
    assert_int_equal(request.n_scored, request.ids.count - request.context.count);
    assert_false(request.is_cut);
    // The context serves the next continuation.
    assert_ok(task_request_continue(&request, &whole, task_text_span("there was"), "row"));
    check_ids(&request.ids, 0, "Once upon \nthere was");
    task_request_release(&request);
}

// "Once upo" + "n": the whole text is no longer than its context, as one token spans the border.
static void test_a_token_across_the_border_is_the_continuation(void **state)
{
    (void)state;
    TaskRequest request = {0};
    const TaskEncoding whole = encoding(512);
    TokenBuffer context = {0}, both = {0};
    assert_ok(tokenizer_encode(tokenizer, &context, "Once upo", 8, false));
    assert_ok(tokenizer_encode(tokenizer, &both, "Once upon", 9, false));
    assert_true(both.count <= context.count);
    assert_ok(task_request_context(&request, &whole, task_text_span("Once upo"), "row"));
    assert_ok(task_request_continue(&request, &whole, task_text_span("n"), "row"));
    check_ids(&request.ids, 0, "Once upon");
    assert_int_equal(request.n_scored, 1);
    token_buffer_release(&context);
    token_buffer_release(&both);
    task_request_release(&request);
}

// max_length tokens are run and the last one is a target besides.
static void test_long_texts_are_cut_on_the_left(void **state)
{
    (void)state;
    TaskRequest request = {0}, cut = {0};
    const TextSpan context = task_text_span("One two three four"),
                   rest = task_text_span(" five six");
    const TaskEncoding whole = encoding(512);
    assert_ok(task_request_context(&request, &whole, context, "row"));
    assert_ok(task_request_continue(&request, &whole, rest, "row"));
    const int n = (int)request.ids.count;
    for (int max_length = 1; max_length < n; max_length++) {
        const TaskEncoding limited = encoding(max_length);
        const int n_scored = request.n_scored < max_length ? request.n_scored : max_length;
        assert_ok(task_request_context(&cut, &limited, context, "row"));
        assert_ok(task_request_continue(&cut, &limited, rest, "row"));
        assert_int_equal(cut.is_cut, n > max_length + 1);
        assert_int_equal(cut.ids.count, max_length + 1);
        assert_memory_equal(cut.ids.ids, request.ids.ids + n - max_length - 1,
                            (size_t)(max_length + 1) * sizeof(int32_t));
        assert_int_equal(cut.n_scored, n_scored);
    }
    task_request_release(&request);
    task_request_release(&cut);
}

static void test_an_empty_context_needs_a_token_that_begins_a_text(void **state)
{
    (void)state;
    TaskRequest request = {0};
    TaskEncoding with = encoding(512);
    assert_fails(
        BAD_INPUT,
        "f:3: nothing stands before the choices, and the tokenizer of MODEL names no token "
        "that begins a text",
        task_request_context(&request, &with, task_text_span(" "), "f:3"));
    with.begin_id = 5;
    assert_ok(task_request_context(&request, &with, task_text_span(" "), "f:3"));
    assert_ok(task_request_continue(&request, &with, task_text_span("two"), "f:3"));
    assert_int_equal(request.ids.ids[0], 5);
    check_ids(&request.ids, 1, " two");
    assert_int_equal(request.n_scored, request.ids.count - 1);
    task_request_release(&request);
}

static void test_ids_beyond_the_model_are_refused(void **state)
{
    (void)state;
    TaskRequest request = {0};
    TaskEncoding small = encoding(512);
    small.vocab_size = 10;
    assert_fails(BAD_INPUT, "f:3: a token has id",
                 task_request_context(&request, &small, task_text_span("Once"), "f:3"));
    assert_fails(BAD_INPUT, "the model has ids 0 to 9: the tokenizer in MODEL is another model's",
                 task_request_context(&request, &small, task_text_span("Once"), "f:3"));
    task_request_release(&request);
}

// Two ranks own the samples 0, 2 and 1; what is stored is what requests say.
static void test_ranks_own_every_other_sample(void **state)
{
    (void)state;
    TaskSet set;
    const TaskEncoding whole = encoding(512);
    const char *path = write_text("piqa.jsonl", PIQA("one", "0") PIQA("two", "1")
                                                    PIQA("three times as long", "1"));
    for (int rank = 0; rank < 2; rank++) {
        assert_ok(task_set_read(&set, piqa(), path, 0));
        assert_ok(task_set_encode(&set, &whole, rank, 2));
        assert_int_equal(set.n_own, rank == 0 ? 2 : 1);
        assert_int_equal(set.own[0].sample, rank == 0 ? 2 : 1); // the longest first
        assert_int_equal(set.samples[0].divisors[1], strlen("the second"));
        const TaskQuestion *question = &set.own[0];
        const TokenBuffer shared = {.ids = set.ids.ids + question->offset,
                                    .count = question->n_shared};
        check_ids(&shared, 0,
                  rank == 0 ? "Question: three times as long\nAnswer:" : "Question: two\nAnswer:");
        assert_int_equal(question->n_ids[0] - question->n_shared, question->n_scored[0]);
        task_set_release(&set);
    }
}

// ---- scores
// --------------------------------------------------------------------------------------

static void test_the_first_of_equal_choices_is_chosen(void **state)
{
    (void)state;
    TaskSample sample = {
        .n_choices = 3, .divisors = {10, 20, 5}, .log_likelihoods = {-20, -20, -11}};
    assert_int_equal(task_sample_choose(&sample, false), 2);
    assert_int_equal(task_sample_choose(&sample, true), 1);
    sample.log_likelihoods[2] = -20;
    assert_int_equal(task_sample_choose(&sample, false), 0);
    sample.divisors[1] = 0; // an empty choice is never the likeliest per character
    assert_int_equal(task_sample_choose(&sample, true), 0);
}

// Standard errors as lm-eval's mean_stderr() and pooled_sample_stderr() give them:
// sqrt(p (1 - p) / (n - 1)), and with groups of 4 and 2 samples
// sqrt((4 * 1/4 * 3/4 + 2 * 1/2 * 1/2) / (6 - 2) / 6).
static void test_standard_errors(void **state)
{
    (void)state;
    static TaskSample samples[6];
    static const bool right[6] = {true, false, false, false, true, false};
    static char *groups[] = {NULL, NULL};
    for (int i = 0; i < 6; i++)
        samples[i] = (TaskSample){.n_choices = 2,
                                  .gold = right[i] ? 1 : 0,
                                  .group = i / 4,
                                  .divisors = {1, 1},
                                  .log_likelihoods = {-2, -1}};
    TaskSet set = {.task = piqa(), .samples = samples, .n_samples = 6};
    TaskScore score = task_set_measure(&set, -1);
    assert_int_equal(score.n, 6);
    assert_true(fabs(score.acc - 2.0 / 6) < 1e-12);
    assert_true(fabs(score.acc_stderr - sqrt(2.0 / 9 / 5)) < 1e-12);
    assert_true(score.chance == 0.5);
    set.groups = groups;
    set.n_groups = 2;
    score = task_set_measure(&set, -1);
    assert_true(fabs(score.acc_norm_stderr - sqrt(1.25 / 4 / 6)) < 1e-12);
    score = task_set_measure(&set, 1);
    assert_int_equal(score.n, 2);
    assert_true(fabs(score.acc - 0.5) < 1e-12);
    set.n_samples = 1;
    assert_true(isnan(task_set_measure(&set, -1).acc_stderr));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_rows_are_evaluated),
        cmocka_unit_test(test_the_file_of_a_task_is_found),
        cmocka_unit_test(test_memory_is_known_before_the_rows_are_read),
        cmocka_unit_test(test_rows_with_subjects_are_taken_at_even_distances),
        cmocka_unit_test(test_bad_files_are_named_with_the_line),
        cmocka_unit_test(test_a_truncated_gz_is_refused),
        cmocka_unit_test(test_white_space_goes_to_the_continuation),
        cmocka_unit_test(test_a_token_across_the_border_is_the_continuation),
        cmocka_unit_test(test_long_texts_are_cut_on_the_left),
        cmocka_unit_test(test_an_empty_context_needs_a_token_that_begins_a_text),
        cmocka_unit_test(test_ids_beyond_the_model_are_refused),
        cmocka_unit_test(test_ranks_own_every_other_sample),
        cmocka_unit_test(test_the_first_of_equal_choices_is_chosen),
        cmocka_unit_test(test_standard_errors),
    };
    return cmocka_run_group_tests(tests, load_tokenizer, release_tokenizer);
}
