// eval/tasks against golden files, which were made with PyTorch and both harnesses' rules: request
// texts, numbers of tokens, divisors, log-likelihoods of every choice, and every prediction.
// Skipped where the assets are not there.
#include "tests/support/testing.h"

#include "data/text/json_lines.h"
#include "eval/tasks/task_set.h"
#include "model/hf/hf.h"

#include <math.h>
#include <string.h>

// Under a sanitizer one question of as many is run as take ten times as long without.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOWER = 10 };
#else
enum { SLOWER = 1 };
#endif

enum { GOLDEN_ITEMS = 200, GOLDEN_LENGTH = 512 };

// Differences are those of float32 sums: observed are 1.8e-4 at a log-likelihood of -1200, 1.0e-4
// above -400.
static double tolerance(double log_likelihood)
{
    return fmax(2e-4, 4e-7 * fabs(log_likelihood));
}

typedef struct TaskGolden {
    json_t *root;
    Tokenizer *tokenizer;
    InferWeights weights;
    ChoiceScorer *scorer;
    TaskEncoding encoding;
} TaskGolden;

static void start_golden(TaskGolden *golden, const char *file, const char *dir)
{
    ModelShape shape;
    const KvFormat exact = kv_format_plain(KV_FLOAT32);
    *golden = (TaskGolden){0};
    assert_ok(json_read(&golden->root, testing_asset(file)));
    assert_ok(hf_load_shape(&shape, dir));
    assert_ok(tokenizer_load(&golden->tokenizer, dir));
    assert_ok(infer_weights_load(&golden->weights, dir, COMPUTE_FLOAT32));
    assert_ok(
        choice_scorer_create(&golden->scorer, &golden->weights, &exact, &(ChoiceScorerOptions){0}));
    golden->encoding = (TaskEncoding){.tokenizer = golden->tokenizer,
                                      .model = dir,
                                      .vocab_size = shape.vocab_size,
                                      .max_length = GOLDEN_LENGTH,
                                      .begin_id = -1};
}

static void end_golden(TaskGolden *golden)
{
    choice_scorer_release(golden->scorer);
    infer_weights_release(&golden->weights);
    tokenizer_release(golden->tokenizer);
    json_decref(golden->root);
}

static const char *golden_rules(TaskRules rules)
{
    return rules == TASK_RULES_REFERENCE ? "lighteval" : "lm_eval";
}

// The golden items are the first rows, of mmlu those at even distances. The file of openbookqa is
// the test split for both rules.
static void read_golden_set(TaskSet *set, const Task *task, int n_items)
{
    char name[128];
    snprintf(name, sizeof name, "tasks/%s.jsonl.gz", task->name);
    assert_ok(task_set_read(set, task, testing_asset(name), n_items));
}

static json_t *golden_items(const TaskGolden *golden, const char *table, const Task *task)
{
    return json_object_get(json_object_get(json_object_get(golden->root, table), task->name),
                           golden_rules(task->rules));
}

// ---- log-likelihoods and predictions
// -------------------------------------------------------------

static void check_sample(const TaskSample *sample, const json_t *golden, const Task *task)
{
    const json_t *values = json_object_get(golden, "ll"),
                 *divisors = json_object_get(golden, "norm");
    assert_int_equal(sample->row, json_integer_value(json_object_get(golden, "i")));
    assert_int_equal(sample->gold, json_integer_value(json_object_get(golden, "gold")));
    assert_int_equal(sample->n_choices, json_array_size(values));
    for (int i = 0; i < sample->n_choices; i++) {
        const double expected = json_real_value(json_array_get(values, (size_t)i));
        assert_int_equal(sample->divisors[i],
                         json_integer_value(json_array_get(divisors, (size_t)i)));
        if (!(fabs(sample->log_likelihoods[i] - expected) <= tolerance(expected)))
            fail_msg("%s row %lld choice %d by %s: %.6f instead of %.6f", task->name,
                     (long long)sample->row, i, golden_rules(task->rules),
                     sample->log_likelihoods[i], expected);
    }
    assert_int_equal(task_sample_choose(sample, true),
                     json_integer_value(json_object_get(golden, "pred")));
    assert_int_equal(task_sample_choose(sample, false),
                     json_integer_value(json_object_get(golden, "pred_raw")));
}

// Of the first n_items every stride-th.
static void check_scores(TaskGolden *golden, const Task *task, int n_items, int stride)
{
    TaskSet set;
    read_golden_set(&set, task, n_items);
    const json_t *items = golden_items(golden, "tasks", task);
    assert_ok(task_set_encode(&set, &golden->encoding, 0, stride));
    assert_int_equal(set.n_own, (n_items + stride - 1) / stride);
    assert_ok(task_set_score(&set, golden->scorer, 0, set.n_own));
    for (int i = 0; i < n_items; i += stride)
        check_sample(&set.samples[i], json_array_get(items, (size_t)i), task);
    task_set_release(&set);
}

static void check_all_scores(TaskGolden *golden, int n_items, int stride)
{
    const Task *task;
    for (TaskRules rules = TASK_RULES_REFERENCE; rules <= TASK_RULES_LM_EVAL; rules++)
        for (int i = 0; (task = task_at(rules, i)) != NULL; i++)
            if (!task->is_only_named)
                check_scores(golden, task, n_items, stride);
}

static void test_log_likelihoods_of_the_demo_model(void **state)
{
    (void)state;
    TaskGolden golden;
    start_golden(&golden, "golden/tasks-demo.json", CONFIGS_DIR "/demo/model");
    check_all_scores(&golden, GOLDEN_ITEMS, 20 * SLOWER);
    end_golden(&golden);
}

// Original attention and MLA, with and without a token before every text, are thus both tested.
static void test_log_likelihoods_of_a_converted_model(void **state)
{
    (void)state;
    TaskGolden golden;
    start_golden(&golden, "golden/tasks-mla260K.json", testing_asset("golden/mla260K"));
    check_all_scores(&golden, 20, SLOWER);
    end_golden(&golden);
}

// ---- texts and tokens
// ----------------------------------------------------------------------------

typedef struct RowCheck {
    TaskGolden *golden;
    const Task *task;
    TaskItem item;
    TaskRequest request;
} RowCheck;

static TextSpan span(const Bytes *bytes)
{
    return (TextSpan){bytes->data, bytes->size};
}

static void check_request_texts(const RowCheck *check)
{
    const json_t *requests = golden_items(check->golden, "first_item_requests", check->task);
    const TaskItem *item = &check->item;
    assert_int_equal(json_array_size(requests), item->n_choices);
    for (int i = 0; i < item->n_choices; i++) {
        const json_t *pair = json_array_get(requests, (size_t)i);
        const Bytes *texts[] = {&item->contexts[item->n_contexts == 1 ? 0 : i],
                                &item->continuations[i]};
        for (size_t t = 0; t < 2; t++) {
            const char *expected = json_string_value(json_array_get(pair, t));
            if (texts[t]->size != (int64_t)strlen(expected) ||
                memcmp(texts[t]->data, expected, strlen(expected)) != 0)
                fail_msg("%s by %s: '%.*s' instead of '%s'", check->task->name,
                         golden_rules(check->task->rules), (int)texts[t]->size, texts[t]->data,
                         expected);
        }
    }
}

static void check_token_counts(RowCheck *check, size_t index)
{
    const json_t *golden = json_array_get(golden_items(check->golden, "tasks", check->task), index);
    const json_t *counts = json_object_get(golden, "tokens");
    TaskRequest *request = &check->request;
    for (int i = 0; i < check->item.n_choices; i++) {
        const json_t *pair = json_array_get(counts, (size_t)i);
        if (i < check->item.n_contexts)
            assert_ok(task_request_context(request, &check->golden->encoding,
                                           span(&check->item.contexts[i]), "row"));
        assert_ok(task_request_continue(request, &check->golden->encoding,
                                        span(&check->item.continuations[i]), "row"));
        assert_int_equal(request->ids.count - request->n_scored,
                         json_integer_value(json_array_get(pair, 0)));
        assert_int_equal(request->n_scored, json_integer_value(json_array_get(pair, 1)));
    }
}

static void check_rows(RowCheck *check, int stride)
{
    TaskSet set;
    JsonLines lines;
    json_t *json;
    TaskRow row;
    int64_t at = 0;
    read_golden_set(&set, check->task, GOLDEN_ITEMS);
    assert_ok(json_lines_open(&lines, set.path));
    for (int64_t s = 0; s < set.n_samples; s += stride) {
        for (; at <= set.samples[s].row; at++) {
            assert_ok(json_lines_next(&json, &lines));
            if (at == set.samples[s].row) {
                assert_ok(check->task->read(&row, json, "row"));
                assert_ok(check->task->prompt(&check->item, &row));
            }
            json_decref(json);
        }
        if (s == 0)
            check_request_texts(check);
        check_token_counts(check, (size_t)s);
    }
    json_lines_close(&lines);
    task_set_release(&set);
}

static void test_requests_are_those_of_both_harnesses(void **state)
{
    (void)state;
    TaskGolden golden;
    const Task *task;
    start_golden(&golden, "golden/tasks-demo.json", CONFIGS_DIR "/demo/model");
    for (TaskRules rules = TASK_RULES_REFERENCE; rules <= TASK_RULES_LM_EVAL; rules++)
        for (int i = 0; (task = task_at(rules, i)) != NULL; i++) {
            RowCheck check = {.golden = &golden, .task = task};
            if (!task->is_only_named)
                check_rows(&check, SLOWER);
            task_item_release(&check.item);
            task_request_release(&check.request);
        }
    end_golden(&golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_are_those_of_both_harnesses),
        cmocka_unit_test(test_log_likelihoods_of_the_demo_model),
        cmocka_unit_test(test_log_likelihoods_of_a_converted_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
