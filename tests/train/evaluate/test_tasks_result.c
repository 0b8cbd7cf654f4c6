// train/evaluate/tasks_result: the numbers of an evaluation as a table, in lm-eval's layout, and a
// line for every sample.
#include "tests/support/testing.h"

#include "train/evaluate/tasks_result.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_SAMPLES = 4, N_TASKS = 7 };

// The reference's tasks, each with its share right of four samples of two choices; mmlu has two
// subjects.
static const double rights[N_TASKS] = {1, 0.5, 1, 0.25, 0.75, 0.5, 0};

static TaskSample samples[N_TASKS][N_SAMPLES];
static char subject_a[] = "anatomy", subject_b[] = "world_religions";
static char *subjects[] = {subject_a, subject_b};
static int64_t subject_rows[] = {20, 30};

static const ModelShape shape = {.n_layers = 2,
                                 .d_model = 64,
                                 .n_heads = 4,
                                 .n_kv_heads = 2,
                                 .head_dim = 16,
                                 .d_ffn = 64,
                                 .vocab_size = 99,
                                 .max_positions = 256,
                                 .rope_pairs = 2,
                                 .d_kv = 8,
                                 .rope_theta = 1000,
                                 .rms_eps = 1e-5};

static TasksEvaluation make_evaluation(TaskRules rules)
{
    TasksEvaluation evaluation = {.rules = rules, .limit = 4, .max_length = 256, .n_cut = 3};
    for (int i = 0; i < N_TASKS; i++) {
        TaskSet *set = &evaluation.sets[evaluation.n_sets++];
        *set = (TaskSet){.task = task_at(rules, i),
                         .path = "tasks/x.jsonl",
                         .n_rows = 50,
                         .samples = samples[i],
                         .n_samples = N_SAMPLES};
        if (set->task->has_groups) {
            set->groups = subjects;
            set->group_rows = subject_rows;
            set->n_groups = 2;
        }
        for (int s = 0; s < N_SAMPLES; s++)
            samples[i][s] = (TaskSample){.row = s,
                                         .n_choices = 2,
                                         .group = set->n_groups > 0 ? s / 2 : 0,
                                         .divisors = {2, 4},
                                         .gold = s < rights[i] * N_SAMPLES ? 0 : 1,
                                         .log_likelihoods = {-1.25, -7.5}};
    }
    return evaluation;
}

static TasksResult make_result(const TasksEvaluation *evaluation, const KvFormat *format)
{
    return (TasksResult){
        .evaluation = evaluation, .model = "runs/a/model", .shape = &shape, .format = format};
}

static double number(const json_t *root, const char *table, const char *task, const char *key)
{
    const json_t *value = json_object_get(json_object_get(json_object_get(root, table), task), key);
    if (!json_is_number(value))
        fail_msg("%s.%s.%s is no number", table, task, key);
    return json_number_value(value);
}

// ARC counts once: (1 + (0.5 + 1) / 2 + 0.25 + 0.75 + 0.5 + 0) / 6.
static void test_the_average_is_of_six(void **state)
{
    (void)state;
    TasksAverage average;
    TasksEvaluation evaluation = make_evaluation(TASK_RULES_REFERENCE);
    assert_true(evaluate_tasks_average(&average, &evaluation));
    assert_true(fabs(average.score - 3.25 / 6) < 1e-12);
    assert_string_equal(average.members[1], "arc");
    assert_string_equal(average.members[5], "mmlu");
    const double error = sqrt(0.25 / 3 * 1.25 + 0.1875 / 3 * 2) / 6; // no error of 0 and 1
    assert_true(fabs(average.standard_error - error) < 1e-12);
    evaluation.n_sets--;
    assert_false(evaluate_tasks_average(&average, &evaluation));
}

static void test_chance_is_said(void **state)
{
    (void)state;
    TaskSample many[17];
    TasksEvaluation evaluation = make_evaluation(TASK_RULES_LM_EVAL);
    assert_true(evaluate_tasks_shown(&evaluation.sets[1]).is_near_chance); // 2 of 4
    assert_true(evaluate_tasks_shown(&evaluation.sets[0]).is_near_chance); // 4 of 4
    assert_string_equal(evaluate_tasks_shown(&evaluation.sets[4]).metric, "acc_norm");
    assert_string_equal(evaluate_tasks_shown(&evaluation.sets[5]).metric, "acc");
    // 16 of 17 is 0.44 above chance, whose error is 0.12; 12 of 17 is 0.2 above it.
    for (int i = 0; i < 17; i++)
        many[i] = samples[0][0];
    many[0].gold = 1;
    evaluation.sets[0].samples = many;
    evaluation.sets[0].n_samples = 17;
    assert_false(evaluate_tasks_shown(&evaluation.sets[0]).is_near_chance);
    for (int i = 1; i < 5; i++)
        many[i].gold = 1;
    assert_true(evaluate_tasks_shown(&evaluation.sets[0]).is_near_chance);
}

static void test_the_file_has_the_harness_layout(void **state)
{
    (void)state;
    const TasksEvaluation evaluation = make_evaluation(TASK_RULES_LM_EVAL);
    KvFormat format = kv_format_plain(KV_BFLOAT16);
    assert_ok(kv_format_parse_bits(&format, "2,4", "bits"));
    const TasksResult result = make_result(&evaluation, &format);
    const char *path = testing_path(testing_dir(), "eval.json");
    json_t *root;
    assert_ok(tasks_result_write(&result, path));
    assert_ok(json_read(&root, path));
    assert_true(number(root, "results", "piqa", "acc,none") == 0.75);
    assert_true(fabs(number(root, "results", "piqa", "acc_norm_stderr,none") - 0.25) < 1e-9);
    assert_null(json_object_get(json_object_get(json_object_get(root, "results"), "winogrande"),
                                "acc_norm,none"));
    assert_true(number(root, "results", "mmlu_anatomy", "acc,none") == 0);
    assert_true(number(root, "n-samples", "mmlu_anatomy", "original") == 20);
    assert_true(number(root, "n-samples", "mmlu", "effective") == 4);
    assert_true(number(root, "groups", "mmlu", "acc,none") == 0);
    const json_t *own = json_object_get(root, "mha2mla");
    assert_true(json_number_value(json_object_get(json_object_get(root, "versions"), "mmlu")) == 2);
    assert_int_equal(
        json_array_size(json_object_get(json_object_get(root, "group_subtasks"), "mmlu")), 2);
    assert_string_equal(json_string_value(json_object_get(own, "rules")), "lm-eval");
    assert_true(number(own, "scores", "winogrande", "score") == 0.5);
    assert_int_equal(json_integer_value(json_object_get(own, "n_cut")), 3);
    assert_true(fabs(json_number_value(json_object_get(own, "average")) - 3.25 / 6) < 1e-9);
    // Original: 2 layers of 2 x 2 heads x 16, two bytes each.
    const json_t *cache = json_object_get(own, "cache");
    assert_true(json_number_value(json_object_get(cache, "original_bytes_per_token")) == 256);
    assert_true(json_number_value(json_object_get(cache, "bytes_per_token")) ==
                kv_format_bytes_per_token(&format, &shape));
    assert_string_equal(json_string_value(json_object_get(cache, "scheme")), "channel");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(cache, "bits"), 1)), 4);
    json_decref(root);
}

// One sample of a task has no standard error, which JSON has no number for.
static void test_an_unknown_error_is_no_number(void **state)
{
    (void)state;
    TasksEvaluation evaluation = make_evaluation(TASK_RULES_REFERENCE);
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    const TasksResult result = make_result(&evaluation, &format);
    const char *path = testing_path(testing_dir(), "eval.json");
    json_t *root;
    evaluation.sets[0].n_samples = 1;
    assert_ok(tasks_result_write(&result, path));
    assert_ok(json_read(&root, path));
    const json_t *entry = json_object_get(json_object_get(root, "results"), "hellaswag");
    assert_string_equal(json_string_value(json_object_get(entry, "acc_stderr,none")), "N/A");
    json_decref(root);
}

static void test_every_sample_has_a_line(void **state)
{
    (void)state;
    const TasksEvaluation evaluation = make_evaluation(TASK_RULES_REFERENCE);
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    const TasksResult result = make_result(&evaluation, &format);
    const char *path = testing_path(testing_dir(), "samples.jsonl");
    char line[512];
    FILE *file;
    int n_lines = 1;
    assert_ok(tasks_result_write_samples(&result, path));
    assert_ok(file_open_stream(&file, path));
    assert_non_null(fgets(line, sizeof line, file));
    assert_string_equal(line, "{\"task\":\"hellaswag\",\"index\":0,\"gold\":0,\"log_likelihoods\":"
                              "[-1.25,-7.5],\"prediction\":0,\"prediction_norm\":0,\"acc\":1,"
                              "\"acc_norm\":1}\n");
    while (fgets(line, sizeof line, file) != NULL)
        n_lines++;
    assert_int_equal(n_lines, N_TASKS * N_SAMPLES);
    assert_non_null(strstr(line, "\"subject\":\"world_religions\"}"));
    fclose(file);
}

static void test_a_full_disk_leaves_no_half_file(void **state)
{
    (void)state;
    const TasksEvaluation evaluation = make_evaluation(TASK_RULES_REFERENCE);
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    const TasksResult result = make_result(&evaluation, &format);
    const char *path = testing_path(testing_dir(), "samples.jsonl");
    testing_limit_files(100);
    const Status samples_status = tasks_result_write_samples(&result, path);
    const Status status = tasks_result_write(&result, path);
    testing_limit_files(-1);
    assert_int_equal(samples_status, FAILED);
    assert_int_equal(status, FAILED);
    assert_false(file_exists(path));
    testing_no_temporaries(path);
}

static void test_the_table_says_how_it_was_measured(void **state)
{
    (void)state;
    const TasksEvaluation evaluation = make_evaluation(TASK_RULES_LM_EVAL);
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    const TasksResult result = make_result(&evaluation, &format);
    static const char *const parts[] = {
        "rules lm-eval, no BOS put, at most 256 tokens (3 questions cut on the left), KV cache "
        "float32: 192.0 bytes/token\n",
        "\npiqa             0.7500   0.2500    0.7500   0.2500       4      0  within 2 stderr of "
        "chance, 0.5000\n",
        "\nwinogrande       0.5000   0.2887         -        -       4      0  within 2 stderr of ",
        "\naverage of six 0.5417, stderr ",
    };
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    tasks_result_print(out, &result);
    fclose(out);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(text, parts[i]) == NULL)
            fail_msg("no '%s' in:\n%s", parts[i], text);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_average_is_of_six),
        cmocka_unit_test(test_chance_is_said),
        cmocka_unit_test(test_the_file_has_the_harness_layout),
        cmocka_unit_test(test_an_unknown_error_is_no_number),
        cmocka_unit_test(test_every_sample_has_a_line),
        cmocka_unit_test(test_a_full_disk_leaves_no_half_file),
        cmocka_unit_test(test_the_table_says_how_it_was_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
