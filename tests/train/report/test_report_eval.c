// Results of evaluations: files read or refused, which averages are compared, tasks.csv, scores in
// metrics.jsonl. The tables and the page are in tests/program/compare.sh and report_page.sh.
#include "tests/support/testing.h"

#include "base/file.h"
#include "train/report/report.h"
#include "train/report/report_scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void write_file(const char *dir, const char *name, const char *text)
{
    assert_ok(file_write(testing_path(dir, name), text, (int64_t)strlen(text)));
}

// A result file of two tasks. "piqa" scores 0.55 of 200 items, "arc_easy" what is given.
static void write_eval(const char *dir, const char *name, const char *rules, double arc_easy,
                       double bytes_per_token, const char *more)
{
    char text[2048];
    snprintf(text, sizeof text,
             "{\"results\":{},\"mha2mla\":{\"format\":\"mha2mla-eval\",\"version\":1,"
             "\"kind\":\"tasks\",\"rules\":\"%s\",\"bos\":true,\"max_length\":2048,\"shots\":0,"
             "\"scores\":{\"piqa\":{\"metric\":\"acc_norm\",\"score\":0.55,\"stderr\":0.03,"
             "\"n\":200},\"arc_easy\":{\"metric\":\"acc_norm\",\"score\":%.10g,\"stderr\":0.04,"
             "\"n\":200}},\"average\":%.10g,\"average_of\":[\"piqa\",\"arc\"],"
             "\"cache\":{\"format\":\"channel 4 bits\",\"scheme\":\"channel\",\"bits\":[4,2],"
             "\"bytes_per_token\":%.10g,\"original_bytes_per_token\":1280}%s}}",
             rules, arc_easy, (0.55 + arc_easy) / 2, bytes_per_token, more);
    write_file(dir, name, text);
}

// A run directory with a training step; `attention` is original or mla.
static void write_run(char dir[PATH_BYTES], const char *attention)
{
    char text[1024];
    strcpy(dir, testing_dir());
    snprintf(text, sizeof text,
             "{\"format\":\"mha2mla-run\",\"name\":\"%s\",\"attention\":\"%s\",\"rope\":\"all\","
             "\"svd\":\"none\",\"d_kv\":0,\"rope_pairs\":0,\"cache_numbers_per_token\":64,"
             "\"original_cache_numbers_per_token\":640,\"steps\":2}",
             attention, attention);
    write_file(dir, "run.json", text);
    write_file(dir, "metrics.jsonl", "{\"step\":1,\"tokens\":5,\"loss\":2.5}\n");
}

static void test_file_is_read_whole(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    strcpy(dir, testing_dir());
    write_eval(dir, "eval-a.json", "reference", 0.4, 100,
               ",\"n_cut\":3,\"step\":7,\"tokens\":70,\"later\":[1]");
    ReportEvals evals = {0};
    assert_ok(report_evals_read(&evals, dir));
    assert_int_equal(evals.n, 1);
    const ReportEval *eval = &evals.list[0];
    assert_string_equal(eval->file, "eval-a.json");
    assert_string_equal(eval->scheme, "channel");
    assert_true(eval->kind == EVAL_TASKS && eval->bos == 1 && eval->shots == 0);
    assert_true(eval->value_bits == 4 && eval->key_bits == 2 && eval->bytes_per_token == 100);
    assert_true(eval->n_cut == 3 && eval->step == 7 && eval->tokens == 70);
    assert_int_equal(eval->n_scores, 2);
    assert_true(report_eval_find(eval, "piqa")->chance == 0.5);
    assert_null(report_eval_find(eval, "arc"));
    // "arc" is arc_easy here: the mean of chances 0.5 and 0.25, of independent errors 0.03 and
    // 0.04.
    assert_true(fabs(eval->average.score - 0.475) < 1e-15); // seen 0
    assert_true(eval->average.chance == 0.375);
    assert_true(fabs(eval->average.error - 0.025) < 1e-15); // seen 0
    assert_false(eval->is_average_ours);
    report_evals_release(&evals);
    write_eval(dir, "eval-a.json", "reference", 0.4, 100, ",\"average_stderr\":0.5");
    assert_ok(report_evals_read(&evals, dir));
    assert_true(evals.list[0].average.error == 0.5); // what the file says comes first
    report_evals_release(&evals);
}

static void test_scores_near_chance_are_told_from_others(void **state)
{
    (void)state;
    EvalScore score = {.task = "piqa", .score = 0.56, .error = 0.031, .chance = 0.5};
    assert_true(report_eval_is_near_chance(&score));
    score.score = 0.44;
    assert_true(report_eval_is_near_chance(&score));
    score.score = 0.57;
    assert_false(report_eval_is_near_chance(&score));
    score.error = NAN; // not known
    assert_false(report_eval_is_near_chance(&score));
    score = (EvalScore){.score = 0.01, .error = 0.3, .chance = report_eval_chance("qasper")};
    assert_false(report_eval_is_near_chance(&score)); // nothing to guess
    assert_true(report_eval_chance("mmlu") == 0.25 && report_eval_chance("winogrande") == 0.5);
}

// Without an average in the file it is the mean, and is known as that.
static void test_missing_members_are_not_known(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    strcpy(dir, testing_dir());
    write_file(dir, "eval.json",
               "{\"mha2mla\":{\"format\":\"mha2mla-eval\",\"version\":1,\"kind\":\"longbench\","
               "\"rules\":\"reference\",\"scores\":{\"trec\":{\"score\":0.5},"
               "\"lcc\":{\"score\":0.25}},\"cache\":{\"format\":\"float32\",\"scheme\":\"plain\","
               "\"bytes_per_token\":8}}}");
    ReportEvals evals = {0};
    assert_ok(report_evals_read(&evals, dir));
    const ReportEval *eval = &evals.list[0];
    assert_true(eval->kind == EVAL_LONGBENCH && eval->is_average_ours);
    assert_true(eval->average.score == 0.375 && isnan(eval->average.error));
    assert_true(eval->bos == -1 && eval->shots == -1 && eval->n_cut == -1 && eval->step == -1);
    assert_true(isnan(eval->original_bytes) && eval->scores[0].n == 0);
    const ReportRun run = {.cache = 8, .original_cache = 16};
    assert_true(report_scores_share(&run, eval) == 0.25); // of 16 numbers of two bytes
    report_evals_release(&evals);
}

// Writes eval.json with `old` replaced by `new` in a good file, and expects a refusal.
static void assert_refused(const char *old, const char *new, const char *message)
{
    char dir[PATH_BYTES], text[4096];
    strcpy(dir, testing_dir());
    write_eval(dir, "good.txt", "reference", 0.4, 100, "");
    FileMap map;
    assert_ok(file_map(&map, testing_path(dir, "good.txt")));
    const char *found = strstr((const char *)map.bytes, old);
    assert_non_null(found);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(found - (const char *)map.bytes),
             (const char *)map.bytes, new, found + strlen(old));
    file_unmap(&map);
    write_file(dir, "eval.json", text);
    ReportEvals evals = {0};
    assert_fails(BAD_INPUT, message, report_evals_read(&evals, dir));
    assert_int_equal(evals.n, 0);
    report_evals_release(&evals);
}

static void test_damaged_files_are_refused_by_file_and_key(void **state)
{
    (void)state;
    assert_refused("\"mha2mla-eval\"", "\"other\"",
                   "eval.json: mha2mla: 'format' is 'other', not 'mha2mla-eval'");
    assert_refused("\"version\":1", "\"version\":2",
                   "eval.json: mha2mla: 'version' is 2, this "
                   "program reads 1");
    assert_refused("\"version\":1", "\"version\":0", "'version' is 0, allowed are 1 to");
    assert_refused("\"tasks\"", "\"speed\"", "'kind' is 'speed', allowed are tasks and longbench");
    assert_refused("\"rules\"", "\"ruled\"", "eval.json: mha2mla: 'rules' is missing");
    assert_refused("reference", "\\u001b[2J", "'rules' has control characters");
    assert_refused("\"piqa\":", "\"\\u0007\":", "the name of a task in 'scores' has control");
    assert_refused("0.55", "1.5", "mha2mla: scores: piqa: 'score' is 1.5, allowed are 0 to 1");
    assert_refused("\"n\":200", "\"n\":-1", "mha2mla: scores: piqa: 'n' is -1");
    assert_refused("\"stderr\":0.03", "\"stderr\":\"x\"", "'stderr' is not a number: \"x\"");
    assert_refused("{\"metric\":\"acc_norm\",\"score\":0.55,\"stderr\":0.03,\"n\":200}", "3",
                   "mha2mla: scores: piqa: is no object with a 'score'");
    assert_refused("\"scores\"", "\"score\"", "'scores' is missing or has no task");
    assert_refused("\"cache\"", "\"cached\"", "'cache' is missing or no object");
    assert_refused("\"bytes_per_token\":100", "\"bytes_per_token\":0",
                   "mha2mla: cache: 'bytes_per_token' is 0");
    assert_refused("\"bos\":true", "\"bos\":1", "'bos' is not true or false: 1");
    assert_refused("}}}", "}}", "not valid JSON");
}

static void test_files_of_other_programs_are_left_out(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    strcpy(dir, testing_dir());
    write_file(dir, "eval-lm.json", "{\"results\":{\"piqa\":{\"acc,none\":0.5}},\"configs\":{}}");
    write_file(dir, "evaluation.json", "[1, 2]");
    write_file(dir, "eval-old.json", "{\"tasks\":{\"piqa\":0.7,\"arc\":{\"score\":0.25}}}");
    ReportEvals evals = {0};
    assert_ok(report_evals_read(&evals, dir));
    assert_int_equal(evals.n, 0);
    assert_int_equal(json_object_size(evals.old), 2);
    assert_true(json_real_value(json_object_get(evals.old, "arc")) == 0.25);
    report_evals_release(&evals);
}

// Two runs, base (the baseline) and mla, as the report reads them.
static void read_report(Report *report, char base[PATH_BYTES], char mla[PATH_BYTES])
{
    *report = (Report){.within = 0.05};
    assert_ok(report_read(report, (char *[]){base, mla}, 2));
}

static void assert_reason(const Report *report, int k, const char *expected)
{
    char reason[REASON_BYTES];
    assert_string_equal(report_scores_reason(reason, report, &report->runs[1].evals.list[k]),
                        expected);
}

static void test_averages_of_one_suite_are_compared(void **state)
{
    (void)state;
    char base[PATH_BYTES], mla[PATH_BYTES];
    write_run(base, "original");
    write_run(mla, "mla");
    write_eval(base, "eval-1.json", "reference", 0.5, 1280, "");
    write_eval(base, "eval-2.json", "reference", 0.45, 160, "");
    write_eval(mla, "eval-1.json", "reference", 0.4, 128, "");
    write_eval(mla, "eval-2.json", "lm-eval", 0.4, 64, "");
    Report report;
    read_report(&report, base, mla);
    const ReportEval *of_base = report.runs[0].evals.list, *of_mla = report.runs[1].evals.list;
    assert_true(isnan(of_base[0].difference)); // it is what others are compared with
    assert_true(fabs(of_base[1].difference + 0.025) < 1e-15);
    assert_true(fabs(of_mla[0].difference + 0.05) < 1e-15);
    assert_true(isnan(of_mla[1].difference));
    assert_true(of_mla[0].suite == of_base[0].suite && of_mla[1].suite != of_mla[0].suite);
    assert_reason(&report, 0, "");
    assert_reason(&report, 1, "not comparable: rules lm-eval, there reference");
    char text[REASON_BYTES];
    assert_string_equal(report_scores_settings(text, &of_mla[0]),
                        "rules reference, 0 shots, BOS, up to 2048 tokens, 200 items of each");
    report_release(&report);
}

// The one evaluation of mla as `old` replaced by `new` in what the baseline has.
static void assert_not_comparable(const char *old, const char *new, const char *reason)
{
    char base[PATH_BYTES], mla[PATH_BYTES], text[4096];
    FileMap map;
    write_run(base, "original");
    write_run(mla, "mla");
    write_eval(base, "eval.json", "reference", 0.5, 1280, "");
    assert_ok(file_map(&map, testing_path(base, "eval.json")));
    const char *found = strstr((const char *)map.bytes, old);
    assert_non_null(found);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(found - (const char *)map.bytes),
             (const char *)map.bytes, new, found + strlen(old));
    file_unmap(&map);
    write_file(mla, "eval.json", text);
    Report report;
    read_report(&report, base, mla);
    assert_true(isnan(report.runs[1].evals.list[0].difference));
    assert_reason(&report, 0, reason);
    report_release(&report);
}

static void test_what_differs_is_named(void **state)
{
    (void)state;
    assert_not_comparable("\"bos\":true", "\"bos\":false",
                          "not comparable: BOS not put, there put");
    assert_not_comparable("\"shots\":0", "\"shots\":5", "not comparable: shots 5, there 0");
    assert_not_comparable(",\"max_length\":2048", "",
                          "not comparable: max_length not known, there 2048");
    assert_not_comparable("\"n\":200", "\"n\":50", "not comparable: 50 items of piqa, there 200");
    assert_not_comparable("\"acc_norm\"", "\"acc\"",
                          "not comparable: piqa by acc, there by acc_norm");
    assert_not_comparable("\"piqa\":{", "\"mmlu\":{",
                          "not comparable: has mmlu, which is not there");
    assert_not_comparable("\"piqa\":{\"metric\":\"acc_norm\",\"score\":0.55,\"stderr\":0.03,"
                          "\"n\":200},",
                          "", "not comparable: lacks piqa, which is there");
    assert_not_comparable("\"tasks\"", "\"longbench\"", "the baseline was not evaluated");
}

// A name of any length is cut between two characters, so that the page's JSON can hold the text.
static void test_long_names_stay_utf8(void **state)
{
    (void)state;
    for (int pad = 0; pad < 3; pad++) { // the cut falls on each byte of a character
        char rules[512] = "", base[PATH_BYTES], mla[PATH_BYTES], reason[REASON_BYTES];
        for (int i = 0; i < pad; i++)
            strcat(rules, "a");
        for (int i = 0; i < 100; i++)
            strcat(rules, "\xe6\xa8\xa1");
        write_run(base, "original");
        write_run(mla, "mla");
        write_eval(base, "eval.json", "reference", 0.5, 1280, "");
        write_eval(mla, "eval.json", rules, 0.5, 1280, "");
        Report report;
        read_report(&report, base, mla);
        report_scores_reason(reason, &report, &report.runs[1].evals.list[0]);
        assert_memory_equal(reason, "not comparable: rules ", 22);
        assert_in_range(strlen(reason), REASON_BYTES - 8, REASON_BYTES - 5); // seen 249 to 251
        json_t *text = json_string(reason);
        assert_non_null(text);
        json_decref(text);
        report_release(&report);
    }
}

// The bytes that `write` puts into a stream.
static char *written(void (*write)(FILE *, const Report *), const Report *report)
{
    char *text = NULL;
    size_t n = 0;
    FILE *stream = open_memstream(&text, &n);
    assert_non_null(stream);
    write(stream, report);
    assert_int_equal(fclose(stream), 0);
    return text;
}

static void test_csv_has_every_score(void **state)
{
    (void)state;
    char base[PATH_BYTES], mla[PATH_BYTES];
    write_run(base, "original");
    write_run(mla, "mla");
    write_eval(base, "eval.json", "reference", 0.5, 1280, "");
    write_eval(mla, "eval.json", "=1+\\\"1\\\"", 0.25, 128, ",\"step\":2,\"tokens\":10");
    write_file(mla, "metrics.jsonl",
               "{\"step\":1,\"tokens\":5,\"loss\":2.5}\n"
               "{\"step\":1,\"tokens\":5,\"tasks\":{\"piqa\":0.5,\"average\":0.375}}\n");
    Report report;
    read_report(&report, base, mla);
    char *csv = written(report_scores_write_csv, &report);
    const char *const rows[] = {
        "\n1,tasks,1,1280,100,4,2,0,yes,2048,,,,0.55,0.03,200,0.5,yes,,\"piqa\",\"acc_norm\","
        "\"channel\",\"channel 4 bits\",\"reference\",\"\",\"eval.json\",\"original\"\n",
        "\n1,tasks,1,1280,100,4,2,0,yes,2048,,,,0.525,0.025,,0.375,,,\"average\",\"\",",
        "\n2,tasks,2,128,10,4,2,0,yes,2048,,2,10,0.25,0.04,200,0.25,yes,,\"arc_easy\",",
        ",\"'=1+\"\"1\"\"\",\"not comparable: rules =1+\"\"1\"\", there reference\",\"eval.json\"",
        "\n2,training,,,,,,,,,,1,5,0.5,,,,,,\"piqa\",\"\",\"\",\"\",\"\",\"\","
        "\"metrics.jsonl\",\"mla\"\n",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strstr(csv, rows[i]) == NULL)
            fail_msg("no %s in %s", rows[i], csv);
    free(csv);
    report_release(&report);
}

static void test_scores_in_metrics_follow_resumes(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    write_run(dir, "mla");
    write_file(dir, "metrics.jsonl",
               "{\"step\":0,\"tokens\":0,\"tasks\":{\"piqa\":0.25}}\n"
               "{\"step\":1,\"tokens\":5,\"loss\":2.5}\n"
               "{\"step\":1,\"tokens\":5,\"tasks\":{\"piqa\":0.5}}\n"
               "{\"step\":2,\"tokens\":10,\"loss\":2.25}\n"
               "{\"step\":2,\"tokens\":10,\"tasks\":{\"piqa\":0.625}}\n"
               "{\"step\":2,\"tokens\":10,\"loss\":2.25}\n" // resumed after step 1
               "{\"step\":2,\"tokens\":10,\"tasks\":{\"piqa\":0.75}}\n");
    Report report = {.within = 0.05};
    assert_ok(report_read(&report, (char *[]){dir}, 1));
    const ReportRun *run = &report.runs[0];
    assert_int_equal(run->n_task_points, 3);
    assert_int_equal(run->n_points, 3);
    assert_int_equal(run->n_resumed, 1);
    assert_true(run->task_points[0].step == 0 && run->task_points[2].tokens == 10);
    assert_true(json_real_value(json_object_get(run->task_points[2].scores, "piqa")) == 0.75);
    report_release(&report);
    write_file(dir, "metrics.jsonl", "{\"step\":1,\"tokens\":5,\"tasks\":{\"piqa\":1.5}}\n");
    assert_fails(BAD_INPUT, "metrics.jsonl:1: 'tasks': the score of 'piqa' is no number from 0",
                 report_read(&report, (char *[]){dir}, 1));
    write_file(dir, "metrics.jsonl", "{\"step\":1,\"tokens\":5,\"tasks\":[0.5]}\n");
    assert_fails(BAD_INPUT, "metrics.jsonl:1: 'tasks' is no object of scores",
                 report_read(&report, (char *[]){dir}, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_is_read_whole),
        cmocka_unit_test(test_scores_near_chance_are_told_from_others),
        cmocka_unit_test(test_missing_members_are_not_known),
        cmocka_unit_test(test_damaged_files_are_refused_by_file_and_key),
        cmocka_unit_test(test_files_of_other_programs_are_left_out),
        cmocka_unit_test(test_averages_of_one_suite_are_compared),
        cmocka_unit_test(test_what_differs_is_named),
        cmocka_unit_test(test_long_names_stay_utf8),
        cmocka_unit_test(test_csv_has_every_score),
        cmocka_unit_test(test_scores_in_metrics_follow_resumes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
