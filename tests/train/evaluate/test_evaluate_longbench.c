// LongBench over ranks: transformers' greedy answers, the metrics' golden scores from predictions
// alone, and files of predictions that go on, the same for any number of ranks.
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"

#include "base/json.h"
#include "base/log.h"
#include "model/hf/generation_config.h"
#include "model/hf/hf.h"
#include "train/evaluate/longbench_result.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEMO_MODEL CONFIGS_DIR "/demo/model"
#define OWN_SETS   GOLDEN_DIR "/longbench/sets"

enum { DEMO_T = 200, N_OWN = 9 };

static Comm comm;
static char dir[PATH_BYTES]; // rank 0's, for all

// A model with what answers need, but for its weights.
typedef struct Subject {
    ModelShape shape;
    KvFormat format;
    Tokenizer *tokenizer;
    GenerationConfig config;
    LongbenchModel model;
} Subject;

static void open_subject(Subject *out, const char *path, const char *tokenizer)
{
    *out = (Subject){.format = kv_format_plain(KV_FLOAT32)};
    assert_ok(hf_load_shape(&out->shape, path));
    assert_ok(tokenizer_load(&out->tokenizer, tokenizer));
    assert_ok(generation_config_load(&out->config, path, out->shape.vocab_size,
                                     tokenizer_eos_id(out->tokenizer)));
    out->model = (LongbenchModel){.dir = path,
                                  .shape = &out->shape,
                                  .tokenizer = out->tokenizer,
                                  .format = &out->format,
                                  .end_ids = out->config.end_ids,
                                  .n_end_ids = out->config.n_end_ids};
}

static void close_subject(Subject *subject)
{
    tokenizer_release(subject->tokenizer);
}

// A whole evaluation; it is released by the caller.
static Status evaluate(LongbenchEvaluation *out, const LongbenchRequest *request,
                       const LongbenchModel *model)
{
    Status status;
    InferWeights weights = {0};
    *out = (LongbenchEvaluation){0};
    TRY(evaluate_longbench_open(out, &comm, request, model));
    if (out->n_missing > 0) {
        assert_ok(infer_weights_load(&weights, model->dir, COMPUTE_FLOAT32));
        TRY_GOTO(release, evaluate_longbench_run(out, &comm, &weights, model));
    }
    status = evaluate_longbench_score(out, &comm);
release:
    infer_weights_release(&weights);
    return status;
}

static LongbenchRequest own_request(const char *predictions)
{
    return (LongbenchRequest){
        .dir = OWN_SETS, .max_length = DEMO_T, .batch = 3, .predictions = predictions};
}

static char *read_text(const char *path, int64_t *size)
{
    FileMap map;
    assert_ok(file_map(&map, path));
    char *text = malloc((size_t)map.size_bytes + 1);
    memcpy(text, map.bytes, (size_t)map.size_bytes);
    text[map.size_bytes] = '\0';
    *size = map.size_bytes;
    file_unmap(&map);
    return text;
}

static void check_same_files(const char *a, const char *b)
{
    int64_t n_a, n_b;
    char *first = read_text(a, &n_a), *second = read_text(b, &n_b);
    assert_string_equal(first, second);
    free(first);
    free(second);
}

// ---- transformers' answers ---------------------------------------------------------------------

static void check_answers(const LongbenchEvaluation *evaluation, const json_t *golden)
{
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(golden, "items"), i, item)
    {
        const char *set = json_string_value(json_object_get(item, "set"));
        const int64_t row = json_integer_value(json_object_get(item, "row"));
        const char *expected = json_string_value(json_object_get(item, "pred"));
        const Prediction *got = predictions_find(&evaluation->predictions, set, row);
        assert_non_null(got);
        assert_int_equal(json_integer_value(json_object_get(got->line, "prompt_tokens")),
                         json_integer_value(json_object_get(item, "prompt_tokens")));
        const char *pred = json_string_value(json_object_get(got->line, "pred"));
        if (strcmp(pred, expected) != 0)
            fail_msg("row %lld of %s: '%s', expected '%s'", (long long)row, set, pred, expected);
    }
}

static void check_model(const char *key, const char *path, LongbenchRequest request)
{
    Subject subject;
    LongbenchEvaluation evaluation;
    json_t *all;
    assert_ok(json_read(&all, GOLDEN_DIR "/longbench/greedy.json"));
    const json_t *golden = json_object_get(all, key);
    request.max_length = json_integer_value(json_object_get(golden, "max_length"));
    open_subject(&subject, path, path);
    assert_ok(evaluate(&evaluation, &request, &subject.model));
    if (comm.rank == 0)
        check_answers(&evaluation, golden);
    evaluate_longbench_release(&evaluation);
    close_subject(&subject);
    json_decref(all);
}

static void test_own_rows_are_answered_as_by_transformers(void **state)
{
    (void)state;
    check_model("demo", DEMO_MODEL, own_request(NULL));
}

static void test_real_rows_are_answered_as_by_transformers(void **state)
{
    (void)state;
    if (comm.size > 2) // as many ranks as CI has cores
        skip();
    check_model("stories3M", testing_asset("models/stories3M"),
                (LongbenchRequest){.dir = testing_asset("longbench"),
                                   .only = "narrativeqa,hotpotqa,musique,trec,triviaqa,"
                                           "passage_count,passage_retrieval_en,lcc,repobench-p",
                                   .limit = 2,
                                   .batch = 8});
}

// ---- scores of predictions ---------------------------------------------------------------------

static void add_golden_lines(FILE *out, const json_t *sets)
{
    const char *set;
    json_t *entry;
    json_object_foreach((json_t *)(uintptr_t)sets, set, entry)
    {
        size_t row;
        const json_t *item;
        json_array_foreach(json_object_get(entry, "items"), row, item)
        {
            json_t *line = json_pack("{s:s, s:I, s:O}", "set", set, "row", (json_int_t)row, "pred",
                                     json_object_get(item, "pred"));
            assert_int_equal(json_dumpf(line, out, JSON_COMPACT), 0);
            fputc('\n', out);
            json_decref(line);
        }
    }
}

// A file of predictions that were made elsewhere.
static void write_golden_predictions(const char *path, const json_t *golden)
{
    if (comm.rank != 0)
        return;
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("{\"mha2mla\": {\"format\": \"mha2mla-predictions\", \"version\": 1}}\n", file);
    add_golden_lines(file, json_object_get(golden, "sets"));
    assert_int_equal(fclose(file), 0);
}

static void check_golden_scores(const LongbenchEvaluation *evaluation, const json_t *golden)
{
    double mean = 0, average;
    for (int f = 0; f < evaluation->files.n; f++) {
        const char *set = evaluation->files.items[f].set.name;
        const json_t *entry = json_object_get(json_object_get(golden, "sets"), set);
        size_t row;
        const json_t *item;
        json_array_foreach(json_object_get(entry, "items"), row, item)
        {
            const Prediction *got = predictions_find(&evaluation->predictions, set, (int64_t)row);
            assert_string_equal(json_string_value(json_object_get(item, "id")),
                                evaluation->sets[f].items[row].id);
            assert_true(json_real_value(json_object_get(got->line, "score")) ==
                        json_number_value(json_object_get(item, "score")));
            assert_true(json_real_value(json_object_get(got->line, "score_levenshtein")) ==
                        json_number_value(json_object_get(item, "score_indel")));
        }
        const double expected = json_real_value(json_object_get(entry, "mean"));
        assert_true(fabs(100 * evaluation->scores[f].score - expected) < 1e-10); // 7e-15
        const json_t *levenshtein = json_object_get(entry, "mean_indel");
        assert_true(levenshtein == NULL ? isnan(evaluation->scores[f].levenshtein)
                                        : fabs(100 * evaluation->scores[f].levenshtein -
                                               json_real_value(levenshtein)) < 1e-10);
        mean += expected / N_LONGBENCH_SETS;
    }
    assert_true(evaluate_longbench_average(&average, evaluation));
    assert_true(fabs(100 * average - mean) < 1e-10);
}

// No weights are loaded and no token is decoded: the model need not be one that could.
static void test_given_predictions_have_the_golden_scores(void **state)
{
    (void)state;
    Subject subject;
    LongbenchEvaluation evaluation;
    json_t *golden;
    char path[PATH_BYTES];
    if (comm.size > 2)
        skip();
    assert_ok(json_read(&golden, testing_asset("golden/longbench-metrics.json")));
    open_subject(&subject, DEMO_MODEL, testing_asset("tokenizers/smollm"));
    subject.shape.max_positions = 2048;
    subject.shape.vocab_size = tokenizer_vocab_size(subject.tokenizer);
    assert_ok(file_join(path, dir, "golden.jsonl"));
    const LongbenchRequest request = {
        .dir = testing_asset("longbench"), .batch = 1, .predictions = path};
    write_golden_predictions(path, golden);
    assert_ok(evaluate_longbench_open(&evaluation, &comm, &request, &subject.model));
    assert_int_equal(evaluation.n_missing, 0);
    assert_int_equal(evaluation.n_items, 187);
    assert_ok(evaluate_longbench_score(&evaluation, &comm));
    if (comm.rank == 0)
        check_golden_scores(&evaluation, golden);
    evaluate_longbench_release(&evaluation);
    close_subject(&subject);
    json_decref(golden);
}

// ---- files of predictions ----------------------------------------------------------------------

// Cuts a file behind `n_lines` lines and some bytes of the next, as a killed process leaves it.
static void tear(const char *path, int n_lines)
{
    int64_t size;
    char *text = read_text(path, &size), *at = text;
    for (int i = 0; i < n_lines; i++)
        at = strchr(at, '\n') + 1;
    assert_ok(file_write(path, text, at + 20 - text));
    free(text);
}

// The order of lines and the batches differ between evaluations, the files do not.
static void test_an_evaluation_goes_on_to_the_same_file(void **state)
{
    (void)state;
    Subject subject;
    LongbenchEvaluation evaluation;
    char whole[PATH_BYTES], torn[PATH_BYTES];
    assert_ok(file_join(whole, dir, "whole.jsonl"));
    assert_ok(file_join(torn, dir, "torn.jsonl"));
    open_subject(&subject, DEMO_MODEL, DEMO_MODEL);
    LongbenchRequest request = own_request(whole);
    assert_ok(evaluate(&evaluation, &request, &subject.model));
    assert_int_equal(evaluation.n_missing, N_OWN);
    evaluate_longbench_release(&evaluation);
    for (int n_kept = 0; n_kept < N_OWN; n_kept += 4) {
        if (comm.rank == 0) {
            assert_ok(file_copy(whole, torn));
            tear(torn, 1 + n_kept);
        }
        request = own_request(torn);
        request.batch = 1 + n_kept;
        assert_ok(evaluate(&evaluation, &request, &subject.model));
        assert_int_equal(evaluation.n_missing, N_OWN - n_kept);
        evaluate_longbench_release(&evaluation);
        if (comm.rank == 0)
            check_same_files(torn, whole);
    }
    close_subject(&subject);
}

static void refuse(const char *path, const char *part, const LongbenchModel *model, int T)
{
    LongbenchEvaluation evaluation;
    LongbenchRequest request = own_request(path);
    request.max_length = T;
    assert_fails(BAD_INPUT, part, evaluate_longbench_open(&evaluation, &comm, &request, model));
}

// Adds a line to what is in the file of a complete evaluation.
static void write_line(const char *path, const char *whole, const char *line)
{
    if (comm.rank != 0)
        return;
    assert_ok(file_copy(whole, path));
    FILE *file = fopen(path, "a");
    assert_non_null(file);
    fprintf(file, "%s\n", line);
    assert_int_equal(fclose(file), 0);
}

// Rank 0 writes what all of them refuse; opening is collective, so that they do not overtake it.
static void test_files_of_other_evaluations_are_refused(void **state)
{
    (void)state;
    Subject subject;
    char whole[PATH_BYTES], path[PATH_BYTES];
    assert_ok(file_join(whole, dir, "whole.jsonl")); // of the test before
    assert_ok(file_join(path, dir, "bad.jsonl"));
    open_subject(&subject, DEMO_MODEL, DEMO_MODEL);
    refuse(whole, "max_length is 200 there and 201 here; name another file", &subject.model, 201);
    subject.format.type = KV_BFLOAT16;
    refuse(whole, "cache is \"float32\" there and \"bfloat16\" here", &subject.model, DEMO_T);
    subject.format.type = KV_FLOAT32;
    subject.shape.rope_theta *= 2;
    refuse(whole, "weights is ", &subject.model, DEMO_T);
    subject.shape.rope_theta /= 2;
    static const char *const cases[][2] = {
        {"{\"set\": \"lcc\", \"row\": 0, \"pred\": \"\"}",
         "bad.jsonl:11: row 0 of lcc is also in line "},
        {"{\"set\": \"lcc\", \"row\": 7}", "bad.jsonl:11: has no text 'pred'"},
        {"{\"row\": 7, \"pred\": \"\"}", "bad.jsonl:11: 'set' is missing"},
        {"{\"set\"", "bad.jsonl:11:"},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        write_line(path, whole, cases[c][0]);
        refuse(path, cases[c][1], &subject.model, DEMO_T);
    }
    static const char other_version[] = "{\"mha2mla\": {\"format\": \"mha2mla-predictions\"}}\n";
    if (comm.rank == 0)
        assert_ok(file_write(path, other_version, sizeof other_version - 1));
    refuse(path, "version is missing there and 1 here", &subject.model, DEMO_T);
    if (comm.rank == 0)
        assert_ok(file_write(path, "{\"set\": \"lcc\"}\n", 15));
    refuse(path, "bad.jsonl:1: is not the first line of a file of predictions", &subject.model,
           DEMO_T);
    close_subject(&subject);
}

// Other rows in the place of those that were answered.
static void test_answers_to_other_prompts_are_refused(void **state)
{
    (void)state;
    Subject subject;
    LongbenchEvaluation evaluation;
    char whole[PATH_BYTES], other[PATH_BYTES], path[PATH_BYTES];
    assert_ok(file_join(whole, dir, "whole.jsonl"));
    assert_ok(file_join(other, dir, "other"));
    assert_ok(file_join(path, dir, "other/trec.jsonl"));
    static const char row[] = "{\"context\": \"x\", \"input\": \"y\", \"answers\": [\"Person\"], "
                              "\"all_classes\": [\"Person\"], \"_id\": \"own-trec-0\"}\n";
    if (comm.rank == 0) {
        assert_ok(file_make_dirs(other));
        assert_ok(file_write(path, row, sizeof row - 1));
    }
    assert_true(comm_all(&comm, true)); // it is there
    open_subject(&subject, DEMO_MODEL, DEMO_MODEL);
    LongbenchRequest request = own_request(whole);
    request.dir = other;
    assert_fails(BAD_INPUT, "answers another prompt than row 0 of trec has now",
                 evaluate_longbench_open(&evaluation, &comm, &request, &subject.model));
    close_subject(&subject);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_rows_are_answered_as_by_transformers),
        cmocka_unit_test(test_real_rows_are_answered_as_by_transformers),
        cmocka_unit_test(test_given_predictions_have_the_golden_scores),
        cmocka_unit_test(test_an_evaluation_goes_on_to_the_same_file),
        cmocka_unit_test(test_files_of_other_evaluations_are_refused),
        cmocka_unit_test(test_answers_to_other_prompts_are_refused),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    if (comm.rank == 0)
        snprintf(dir, sizeof dir, "%s", testing_dir());
    comm_broadcast(&comm, dir, sizeof dir, 0);
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
