// eval/longbench: the prompts of real rows, token by token, and rows that are not as they should
// be.
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/json.h"
#include "eval/longbench/longbench_items.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- the reference's prompts -------------------------------------------------------------------

static void check_part(const char *what, const LongbenchItem *item, int64_t first,
                       const json_t *expected)
{
    for (size_t i = 0; i < json_array_size(expected); i++)
        if (item->ids[first + (int64_t)i] != json_integer_value(json_array_get(expected, i)))
            fail_msg("%s of %s: id %d at %lld", what, item->id, (int)item->ids[first + (int64_t)i],
                     (long long)(first + (int64_t)i));
}

static void check_item(const LongbenchItem *item, const json_t *expected)
{
    const int64_t n = json_integer_value(json_object_get(expected, "n"));
    const int64_t before = json_integer_value(json_object_get(expected, "before"));
    if (item->n_ids != n || item->n_whole != before)
        fail_msg("%s: %lld of %lld ids, expected %lld of %lld", item->id, (long long)item->n_ids,
                 (long long)item->n_whole, (long long)n, (long long)before);
    const json_t *tail = json_object_get(expected, "tail"), *cut = json_object_get(expected, "cut");
    check_part("head", item, 0, json_object_get(expected, "head"));
    check_part("tail", item, n - (int64_t)json_array_size(tail), tail);
    if (before > n) // two ids on each side of the cut
        check_part("cut", item, n - n / 2 - 2, cut);
    assert_string_equal(item->sha256, json_string_value(json_object_get(expected, "sha256")));
}

// Prompts of one tokenizer in all sets that leave room for one; how many were compared.
static int check_tokenizer(const json_t *golden, const char *key, const char *model)
{
    Tokenizer *tokenizer;
    LongbenchFiles files;
    int n_checked = 0;
    const json_t *expected = json_object_get(json_object_get(golden, "tokenizers"), key);
    assert_non_null(expected);
    assert_ok(tokenizer_load(&tokenizer, testing_asset(model)));
    assert_ok(longbench_find_files(&files, testing_asset("longbench"), NULL));
    assert_int_equal(files.n, N_LONGBENCH_SETS);
    const LongbenchPrompting how = {.tokenizer = tokenizer,
                                    .model = model,
                                    .vocab_size = tokenizer_vocab_size(tokenizer),
                                    .max_length = atoi(strchr(key, '@') + 1),
                                    .limit = 3};
    for (int f = 0; f < files.n; f++) {
        LongbenchItems items;
        if (files.items[f].set.max_gen >= how.max_length)
            continue;
        assert_ok(longbench_read_items(&items, &files.items[f], &how));
        for (int64_t i = 0; i < items.n; i++) {
            const json_t *item = json_object_get(expected, items.items[i].id);
            if (item == NULL)
                fail_msg("%s: %s is not in the golden file", key, items.items[i].id);
            check_item(&items.items[i], item);
            n_checked++;
        }
        longbench_items_release(&items);
    }
    assert_int_equal(n_checked, json_object_size(expected));
    longbench_files_release(&files);
    tokenizer_release(tokenizer);
    return n_checked;
}

static void test_ids_of_real_prompts(void **state)
{
    (void)state;
    json_t *golden;
    assert_ok(json_read(&golden, testing_asset("golden/longbench-prompts.json")));
    int n = check_tokenizer(golden, "smollm@2048", "tokenizers/smollm");
    n += check_tokenizer(golden, "llama2@4096", "tokenizers/llama2");
    n += check_tokenizer(golden, "stories3M@512", "models/stories3M");
    assert_int_equal(n, 48 + 48 + 39);
    json_decref(golden);
}

static void test_templates_and_lengths_are_longbenchs(void **state)
{
    (void)state;
    json_t *golden;
    assert_ok(json_read(&golden, testing_asset("golden/longbench-prompts.json")));
    for (int s = 0; s < N_LONGBENCH_SETS; s++) {
        const LongbenchSet *set = &longbench_sets[s];
        assert_string_equal(set->template, json_string_value(json_object_get(
                                               json_object_get(golden, "templates"), set->name)));
        assert_int_equal(set->max_gen, json_integer_value(json_object_get(
                                           json_object_get(golden, "max_gen"), set->name)));
    }
    json_decref(golden);
}

// ---- rows of our own ---------------------------------------------------------------------------

static const char *write_rows(const char *name, const char *text)
{
    const char *path = testing_path(testing_dir(), name);
    assert_ok(file_write(path, text, (int64_t)strlen(text)));
    return path;
}

// Items of `text` as the file of a set, with the tokenizer of the demo's model.
static Status read_rows(LongbenchItems *items, const char *set, const char *text,
                        int64_t max_length)
{
    char name[64];
    LongbenchFile file = {.set = *longbench_find_set(set)};
    snprintf(name, sizeof name, "%s.jsonl", set);
    snprintf(file.path, sizeof file.path, "%s", write_rows(name, text));
    Tokenizer *tokenizer;
    assert_ok(tokenizer_load(&tokenizer, CONFIGS_DIR "/demo/model"));
    const LongbenchPrompting how = {.tokenizer = tokenizer,
                                    .model = "demo",
                                    .vocab_size = tokenizer_vocab_size(tokenizer),
                                    .max_length = max_length,
                                    .limit = 0};
    const Status status = longbench_read_items(items, &file, &how);
    tokenizer_release(tokenizer);
    return status;
}

static char *decode(const LongbenchItem *item)
{
    Tokenizer *tokenizer;
    char *text;
    int64_t size;
    assert_ok(tokenizer_load(&tokenizer, CONFIGS_DIR "/demo/model"));
    assert_ok(tokenizer_decode(tokenizer, item->ids, item->n_ids, &text, &size, true));
    tokenizer_release(tokenizer);
    return text;
}

static void test_a_row_fills_the_template_once(void **state)
{
    (void)state;
    LongbenchItems items;
    // A text with braces, and the key of the parquet files.
    assert_ok(read_rows(&items, "repobench-p",
                        "{\"context\": \"{input} \", \"question\": \"x\", \"answers\": [\"y\"], "
                        "\"_id\": \"seven\"}\n"
                        "{\"context\": \"\", \"input\": \"\", \"answers\": \"z\", "
                        "\"all_classes\": null}\n",
                        512));
    assert_int_equal(items.n, 2);
    char *text = decode(&items.items[0]);
    assert_string_equal(text, "Please complete the code given below. \n"
                              "{input} xNext line of code:\n");
    free(text);
    assert_string_equal(items.items[0].id, "seven");
    assert_false(items.items[0].is_cut);
    assert_int_equal(items.items[0].n_whole, items.items[0].n_ids);
    assert_string_equal(items.items[1].id, "1");
    assert_string_equal(json_string_value(json_array_get(items.items[1].answers, 0)), "z");
    longbench_items_release(&items);
}

// 8 T characters stay of a context, also where they are not one byte each, and n tokens of the
// prompt, of an odd number one more at the beginning.
static void test_cut_by_characters_and_by_ids(void **state)
{
    (void)state;
    enum { T = 99, MAX_GEN = 64, N_CHARACTERS = 8 * T + 1 };
    char *text = calloc(1, 4096), *prompt;
    LongbenchItems items;
    strcat(text, "{\"input\": \"\", \"answers\": [\"y\"], \"context\": \"");
    for (int i = 0; i < N_CHARACTERS; i++)
        strcat(text, i == 4 * T ? "#" : "\xc3\xa9");
    strcat(text, "\"}");
    assert_ok(read_rows(&items, "lcc", text, 4096));
    prompt = decode(&items.items[0]);
    assert_non_null(strchr(prompt, '#'));
    assert_false(items.items[0].is_cut);
    const int64_t n_whole = items.items[0].n_ids;
    free(prompt);
    longbench_items_release(&items);

    assert_ok(read_rows(&items, "lcc", text, T));
    const LongbenchItem *item = &items.items[0];
    assert_true(item->is_cut);
    assert_int_equal(item->n_ids, T - MAX_GEN);
    assert_true(item->n_whole < n_whole); // without the # in the middle
    prompt = decode(item);
    assert_null(strchr(prompt, '#'));
    assert_memory_equal(prompt, "Please", 6);
    free(prompt);
    longbench_items_release(&items);
    free(text);
}

static void test_bad_rows_name_file_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *set, *row, *part;
    } cases[] = {
        {"qasper", "{\"input\": \"x\", \"answers\": [\"y\"]}",
         "qasper.jsonl:1: 'context' is missing"},
        {"qasper", "{\"context\": \"x\", \"answers\": [\"y\"]}",
         "qasper.jsonl:1: has neither 'input' nor 'question'"},
        {"qasper", "\n{\"context\": 7, \"input\": \"x\", \"answers\": [\"y\"]}",
         "qasper.jsonl:2: 'context' is not a text"},
        {"qasper", "{\"context\": \"x\", \"input\": \"x\"}",
         "qasper.jsonl:1: 'answers' is missing"},
        {"qasper", "{\"context\": \"x\", \"input\": \"x\", \"answers\": []}",
         "'answers' is not a list of one text or more"},
        {"qasper", "{\"context\": \"x\", \"input\": \"x\", \"answers\": [1]}",
         "'answers' is not a list of one text or more"},
        {"trec",
         "{\"context\": \"x\", \"input\": \"x\", \"answers\": [\"y\"], \"all_classes\": null}",
         "trec.jsonl:1: 'all_classes' is not a list"},
        {"passage_retrieval_en", "{\"context\": \"x\", \"input\": \"x\", \"answers\": [\"seven\"]}",
         "passage_retrieval_en.jsonl:1: "},
        {"qasper", "", "qasper.jsonl: has no rows"},
    };
    LongbenchItems items;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        assert_fails(BAD_INPUT, cases[c].part, read_rows(&items, cases[c].set, cases[c].row, 512));
}

// ---- files -------------------------------------------------------------------------------------

static void write_file(const char *dir, const char *name, const char *text)
{
    assert_ok(file_write(testing_path(dir, name), text, (int64_t)strlen(text)));
}

static void test_files_of_a_directory(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    LongbenchFiles files;
    snprintf(dir, sizeof dir, "%s", testing_dir());
    assert_fails(BAD_INPUT, "has no set of LongBench", longbench_find_files(&files, dir, NULL));
    assert_ok(file_make_dirs(testing_path(dir, "data")));
    write_file(dir, "data/trec.jsonl", "{}\n");
    write_file(dir, "qasper.jsonl", "{}\n");
    write_file(dir, "lsht.jsonl", "{\"input\": \"x\"}\n"); // Chinese
    write_file(dir, "qasper_e.jsonl", "{\"input\": \"x\"}\n");
    write_file(dir, "notes.txt", "x");
    write_file(dir, "ruler_qa_1.jsonl", "{\"input\": \"x\", \"outputs\": [\"y\"]}\n");
    write_file(dir, "keys.jsonl",
               "{\"input\": \"x\", \"target\": \"7\", \"passkey_position\": 3}\n");
    assert_ok(longbench_find_files(&files, dir, NULL));
    assert_int_equal(files.n, 4);
    assert_string_equal(files.items[0].set.name, "qasper");
    assert_string_equal(files.items[1].set.name, "trec");
    assert_string_equal(files.items[2].set.name, "keys");
    assert_string_equal(files.items[3].set.name, "ruler_qa_1");
    assert_int_equal(files.items[2].set.metric, LONGBENCH_MATCH_ALL);
    assert_int_equal(files.items[3].set.metric, LONGBENCH_MATCH_ANY);
    assert_int_equal(files.items[3].set.max_gen, 32);

    assert_fails(BAD_INPUT,
                 "qasper,trec,ruler_qa_1: answers have up to 128 tokens, prompt and "
                 "answer together 32; give a longer --max-length or --only keys",
                 longbench_check_length(&files, 32));
    assert_fails(BAD_INPUT, "qasper: answers", longbench_check_length(&files, 128));
    assert_ok(longbench_check_length(&files, 129));
    longbench_files_release(&files);

    assert_ok(longbench_find_files(&files, dir, "keys,trec"));
    assert_int_equal(files.n, 2);
    assert_string_equal(files.items[0].set.name, "trec");
    longbench_files_release(&files);
    assert_fails(BAD_INPUT, "has no lcc.jsonl", longbench_find_files(&files, dir, "trec,lcc"));
    assert_fails(BAD_INPUT, "'qaspre' is neither a set of LongBench nor in",
                 longbench_find_files(&files, dir, "qaspre"));
    assert_fails(BAD_INPUT, "did you mean qasper", longbench_find_files(&files, dir, "qaspre"));
    assert_fails(BAD_INPUT, "did you mean ruler_qa_1",
                 longbench_find_files(&files, dir, "ruler_qa_2"));
    write_file(dir, "trec.jsonl", "{}\n");
    assert_fails(BAD_INPUT, "are both the set trec", longbench_find_files(&files, dir, NULL));
    assert_fails(BAD_INPUT, "absent",
                 longbench_find_files(&files, testing_absent("longbench"), NULL));
}

// ---- needles -----------------------------------------------------------------------------------

static double match(LongbenchMetric metric, const char *prediction)
{
    const AnswerText answers[] = {{"Blue-7", 6}, {"red", 3}};
    const AnswerKey key = {.references = answers, .n_references = 2};
    const LongbenchSet set = {.metric = metric, .is_needle = true};
    double score;
    assert_ok(
        longbench_score(&score, &set, (AnswerText){prediction, (int64_t)strlen(prediction)}, &key));
    return score;
}

static void test_matching_answers(void **state)
{
    (void)state;
    assert_true(match(LONGBENCH_MATCH_ALL, "it is BLUE-7.") == 0.5);
    assert_true(match(LONGBENCH_MATCH_ALL, "reddish, blue-7") == 1);
    assert_true(match(LONGBENCH_MATCH_ALL, "blue7") == 0);
    assert_true(match(LONGBENCH_MATCH_ALL, "") == 0);
    assert_true(match(LONGBENCH_MATCH_ANY, "Red") == 1);
    assert_true(match(LONGBENCH_MATCH_ANY, "green") == 0);
}

static void test_real_needle_rows(void **state)
{
    (void)state;
    Tokenizer *tokenizer;
    LongbenchFiles files;
    LongbenchItems items;
    assert_ok(longbench_find_files(&files, testing_asset("longctx"), NULL));
    assert_int_equal(files.n, 2);
    assert_ok(tokenizer_load(&tokenizer, testing_asset("tokenizers/smollm")));
    const LongbenchPrompting how = {tokenizer, "smollm", tokenizer_vocab_size(tokenizer), 1 << 20,
                                    0};
    assert_string_equal(files.items[0].set.name, "passkey");
    assert_ok(longbench_read_items(&items, &files.items[0], &how));
    LongbenchItemScore score;
    const char answer[] = "74509. The";
    assert_ok(longbench_score_item(&score, &files.items[0].set, &items.items[0],
                                   (AnswerText){answer, sizeof answer - 1}));
    assert_true(score.score == 1 && isnan(score.levenshtein));
    assert_false(items.items[0].is_cut); // whole, far longer than a context of 8 T characters
    longbench_items_release(&items);
    assert_int_equal(files.items[1].set.max_gen, 128);
    assert_ok(longbench_read_items(&items, &files.items[1], &how));
    assert_int_equal(items.n, 20);
    longbench_items_release(&items);
    longbench_files_release(&files);
    tokenizer_release(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_of_real_prompts),
        cmocka_unit_test(test_templates_and_lengths_are_longbenchs),
        cmocka_unit_test(test_a_row_fills_the_template_once),
        cmocka_unit_test(test_cut_by_characters_and_by_ids),
        cmocka_unit_test(test_bad_rows_name_file_and_line),
        cmocka_unit_test(test_files_of_a_directory),
        cmocka_unit_test(test_matching_answers),
        cmocka_unit_test(test_real_needle_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
