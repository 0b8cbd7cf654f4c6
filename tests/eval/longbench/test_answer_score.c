// eval/longbench: scores of answers against those of LongBench's own metrics, and inputs that
// nobody writes.
#include "tests/support/testing.h"

#include "base/json.h"
#include "eval/longbench/answer_score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define METRICS_ASSET "golden/longbench-metrics.json"
#define ANSWERS       GOLDEN_DIR "/longbench/answers.json"

enum { MOST_TEXTS = 64, MIB = 1 << 20 };

// Scores are quotients of the same integers; ROUGE-L's sums are the original's.
static const double tolerance = 1e-12; // seen: 0

typedef struct Case {
    AnswerMetric metric;
    bool first_line_only;
    AnswerText prediction;
    AnswerText references[MOST_TEXTS], classes[MOST_TEXTS];
    AnswerKey key;
} Case;

static AnswerMetric metric_of(const char *name)
{
    static const char *const names[] = {
        [ANSWER_QA_F1] = "qa_f1",
        [ANSWER_ROUGE_L] = "rouge_l",
        [ANSWER_EDIT_SIM] = "edit_sim",
        [ANSWER_EDIT_SIM_INDEL] = "edit_sim_indel",
        [ANSWER_CLASSIFICATION] = "classification",
        [ANSWER_COUNT] = "count",
        [ANSWER_RETRIEVAL] = "retrieval",
    };
    for (int i = 0; i < (int)(sizeof names / sizeof names[0]); i++)
        if (strcmp(name, names[i]) == 0)
            return (AnswerMetric)i;
    fail_msg("no metric %s", name);
    return ANSWER_QA_F1;
}

static AnswerText text_of(const json_t *string)
{
    assert_true(json_is_string(string));
    return (AnswerText){json_string_value(string), (int64_t)json_string_length(string)};
}

static int texts_of(AnswerText *out, const json_t *list)
{
    const int n = (int)json_array_size(list);
    assert_true(n <= MOST_TEXTS);
    for (int i = 0; i < n; i++)
        out[i] = text_of(json_array_get(list, (size_t)i));
    return n;
}

static double score_of(Case *c)
{
    double score = -1;
    c->key.references = c->references;
    c->key.classes = c->classes;
    assert_ok(answer_score(&score, c->metric, c->first_line_only, c->prediction, &c->key));
    return score;
}

static void assert_score(Case *c, double expected, const char *what, size_t index)
{
    const double score = score_of(c);
    if (!(fabs(score - expected) <= tolerance))
        fail_msg("%s %zu: score %.17g, not %.17g; prediction '%.200s'", what, index, score,
                 expected, c->prediction.bytes);
}

static void check_item(Case *c, const json_t *item, const char *set, size_t index)
{
    const json_t *indel = json_object_get(item, "score_indel");
    c->prediction = text_of(json_object_get(item, "pred"));
    c->key.n_references = texts_of(c->references, json_object_get(item, "answers"));
    assert_score(c, json_number_value(json_object_get(item, "score")), set, index);
    if (c->metric != ANSWER_EDIT_SIM)
        return;
    c->metric = ANSWER_EDIT_SIM_INDEL;
    assert_score(c, json_number_value(indel), set, index);
    c->metric = ANSWER_EDIT_SIM;
}

static void test_real_predictions_have_the_originals_scores(void **state)
{
    (void)state;
    json_t *root, *set;
    const char *name;
    int n_items = 0;
    assert_ok(json_read(&root, testing_asset(METRICS_ASSET)));
    json_object_foreach(json_object_get(root, "sets"), name, set)
    {
        Case c = {.metric = metric_of(json_string_value(json_object_get(set, "metric")))};
        json_t *item, *first_line;
        size_t i;
        json_array_foreach(json_object_get(root, "first_line_only"), i, first_line)
            c.first_line_only |= strcmp(json_string_value(first_line), name) == 0;
        c.key.n_classes = texts_of(c.classes, json_object_get(set, "all_classes"));
        json_array_foreach(json_object_get(set, "items"), i, item)
        {
            check_item(&c, item, name, i);
            n_items++;
        }
    }
    assert_int_equal(n_items, 187);
    json_decref(root);
}

static void test_edge_cases_have_the_originals_scores(void **state)
{
    (void)state;
    json_t *root, *item;
    size_t i;
    assert_ok(json_read(&root, testing_asset(METRICS_ASSET)));
    const json_t *cases = json_object_get(root, "edge_cases");
    assert_int_equal(json_array_size(cases), 28);
    json_array_foreach(cases, i, item)
    {
        Case c = {.metric = metric_of(json_string_value(json_object_get(item, "metric")))};
        c.prediction = text_of(json_object_get(item, "pred"));
        c.references[0] = text_of(json_object_get(item, "answer"));
        c.key.n_references = 1;
        c.key.n_classes = texts_of(c.classes, json_object_get(item, "all_classes"));
        assert_score(&c, json_number_value(json_object_get(item, "score")), "edge case", i);
    }
    json_decref(root);
}

static void test_made_cases_have_the_originals_scores(void **state)
{
    (void)state;
    json_t *root, *item;
    size_t i;
    assert_ok(json_read(&root, ANSWERS));
    const json_t *cases = json_object_get(root, "cases");
    assert_true(json_array_size(cases) > 1000);
    json_array_foreach(cases, i, item)
    {
        Case c = {.metric = metric_of(json_string_value(json_object_get(item, "metric")))};
        c.prediction = text_of(json_object_get(item, "prediction"));
        c.first_line_only = json_is_true(json_object_get(item, "first_line"));
        c.key.n_references = texts_of(c.references, json_object_get(item, "references"));
        c.key.n_classes = texts_of(c.classes, json_object_get(root, "classes"));
        assert_score(&c, json_number_value(json_object_get(item, "score")), "case", i);
    }
    json_decref(root);
}

// One reference, without the cases' files.
static Status score_pair(double *out, AnswerMetric metric, AnswerText prediction,
                         AnswerText reference)
{
    const AnswerKey key = {.references = &reference, .n_references = 1};
    return answer_score(out, metric, false, prediction, &key);
}

#define TEXT(literal) ((AnswerText){literal, sizeof(literal) - 1})

static void test_broken_utf8_and_nuls_are_characters(void **state)
{
    (void)state;
    // bytes.decode("utf-8", "replace") of the first is the second.
    const struct {
        AnswerText bytes, text;
    } pairs[] = {
        {TEXT("caf\xE9 x"), TEXT("caf\uFFFD x")},
        {TEXT("\xE2\x82\xF0\x9F\x98\x80\xC3"), TEXT("\uFFFD\U0001F600\uFFFD")},
        {TEXT("\xED\xA0\x80"), TEXT("\uFFFD\uFFFD\uFFFD")},
        {TEXT("a\0b\0"), TEXT("a\0b\0")},
    };
    double score;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        assert_ok(score_pair(&score, ANSWER_EDIT_SIM, pairs[i].bytes, pairs[i].text));
        assert_true(score == 1);
        assert_ok(score_pair(&score, ANSWER_QA_F1, pairs[i].bytes, pairs[i].text));
        assert_true(score == 1);
    }
    assert_ok(score_pair(&score, ANSWER_QA_F1, TEXT("a\0b"), TEXT("a")));
    assert_true(score == 0);
    assert_ok(score_pair(&score, ANSWER_ROUGE_L, TEXT("a\0b c"), TEXT("a c")));
    assert_true(fabs(score - 0.5) < 1e-7); // c of two words each
}

static void test_nothing_to_compare_with_scores_0(void **state)
{
    (void)state;
    const AnswerKey key = {0};
    for (AnswerMetric metric = ANSWER_QA_F1; metric <= ANSWER_RETRIEVAL; metric++) {
        double score = -1;
        assert_ok(answer_score(&score, metric, true, (AnswerText){NULL, 0}, &key));
        assert_true(score == 0);
    }
}

static void test_references_without_what_the_metric_needs_are_refused(void **state)
{
    (void)state;
    double score;
    assert_fails(BAD_INPUT, "names no \"Paragraph N\"",
                 score_pair(&score, ANSWER_RETRIEVAL, TEXT("7"), TEXT("Paragraph x 7")));
    assert_fails(BAD_INPUT, "no all_classes",
                 score_pair(&score, ANSWER_CLASSIFICATION, TEXT("a"), TEXT("a")));
}

static char *repeated(const char *part, int64_t size)
{
    const size_t n = strlen(part);
    char *text = malloc((size_t)size);
    assert_non_null(text);
    for (int64_t i = 0; i < size; i++)
        text[i] = part[(size_t)i % n];
    return text;
}

// Against references of the sets' lengths a prediction of a mebibyte takes no time: the test's time
// limit would end it (seen: 2.5 s of processor time for all).
static void test_long_predictions_are_scored_in_time(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "a", "ab", " ", ".", "a. ", "the cat. sat ", "\n", "1 ", "\xFF", "\u0130\u03A3'", "\0"};
    enum { SIZE = 2000 };
    char *reference = repeated("Paragraph 1 of the cat sat. Then ", SIZE);
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        char *prediction = repeated(parts[p][0] != '\0' ? parts[p] : "\xC2", MIB);
        for (AnswerMetric metric = ANSWER_QA_F1; metric <= ANSWER_RETRIEVAL; metric++) {
            const AnswerText class = {reference, 12}, expected = {reference, SIZE};
            const AnswerKey key = {&expected, 1, &class, 1};
            double score = -1;
            assert_ok(answer_score(&score, metric, false, (AnswerText){prediction, MIB}, &key));
            assert_true(score >= 0 && score <= 1);
        }
        free(prediction);
    }
    free(reference);
}

static void test_what_would_take_minutes_is_refused(void **state)
{
    (void)state;
    double score;
    char *a = repeated("ab ", 4 * MIB), *b = repeated("b a ", 4 * MIB), *c = repeated("a. ", MIB);
    const AnswerText x = {a, 4 * MIB}, y = {b, 4 * MIB}, sentences = {c, MIB};
    assert_fails(BAD_INPUT, "too long to be compared", score_pair(&score, ANSWER_ROUGE_L, x, y));
    assert_fails(BAD_INPUT, "too long to be compared",
                 score_pair(&score, ANSWER_EDIT_SIM_INDEL, x, y));
    assert_fails(BAD_INPUT, "too long to be compared",
                 score_pair(&score, ANSWER_ROUGE_L, sentences, sentences));
    free(a);
    free(b);
    free(c);
}

// The trace of two sentences whose rows are not all kept: every word of the reference is in the
// prediction, in order, beside as many others.
static void test_the_trace_of_long_sentences_is_whole(void **state)
{
    (void)state;
    enum { WORDS = 20000, BYTES = 8 };
    char *reference = malloc(WORDS * BYTES + 1), *prediction = malloc(2 * WORDS * BYTES + 1);
    double score;
    assert_non_null(reference);
    assert_non_null(prediction);
    for (unsigned i = 0; i < WORDS; i++) {
        const unsigned digits = i % 1000000; // six, as the compiler sees
        snprintf(reference + i * BYTES, BYTES + 1, "w%06u ", digits);
        snprintf(prediction + i * 2 * BYTES, 2 * BYTES + 1, "x%06u w%06u ", digits, digits);
    }
    assert_ok(score_pair(&score, ANSWER_ROUGE_L, (AnswerText){prediction, 2 * WORDS * BYTES},
                         (AnswerText){reference, WORDS * BYTES}));
    assert_true(fabs(score - 2.0 / 3) < 1e-7); // P = 1/2, R = 1
    free(reference);
    free(prediction);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_predictions_have_the_originals_scores),
        cmocka_unit_test(test_edge_cases_have_the_originals_scores),
        cmocka_unit_test(test_made_cases_have_the_originals_scores),
        cmocka_unit_test(test_broken_utf8_and_nuls_are_characters),
        cmocka_unit_test(test_nothing_to_compare_with_scores_0),
        cmocka_unit_test(test_references_without_what_the_metric_needs_are_refused),
        cmocka_unit_test(test_long_predictions_are_scored_in_time),
        cmocka_unit_test(test_what_would_take_minutes_is_refused),
        cmocka_unit_test(test_the_trace_of_long_sentences_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
