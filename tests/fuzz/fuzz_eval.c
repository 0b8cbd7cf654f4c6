// eval.json: `compare` refuses it in one line, or every text of it can be shown and every number is
// in its bounds, and the report's tables, tasks.csv and the page's data can be written.
#include "tests/fuzz/fuzzing.h"

#include "train/report/report_scores.h"

#include <math.h>
#include <string.h>

static void check_score(const EvalScore *score)
{
    CHECK(report_eval_is_printable(score->task) && report_eval_is_printable(score->metric),
          "a control character in a name");
    CHECK(score->score >= 0 && score->score <= 1 && score->n >= 0, "score %g of %lld", score->score,
          (long long)score->n);
    CHECK(isnan(score->error) || score->error >= 0, "standard error %g", score->error);
}

static void check_eval(const ReportEval *eval)
{
    CHECK(report_eval_is_printable(eval->rules) && report_eval_is_printable(eval->cache) &&
              report_eval_is_printable(eval->scheme),
          "a control character in a name");
    CHECK(eval->bytes_per_token > 0 && eval->n_scores > 0, "%d scores", eval->n_scores);
    CHECK(eval->shots >= -1 && eval->step >= -1 && eval->tokens >= -1, "counts");
    for (int i = 0; i < eval->n_scores; i++)
        check_score(&eval->scores[i]);
    CHECK(eval->average.score >= 0 && eval->average.score <= 1 + 1e-12, "average %g",
          eval->average.score);
}

// What is written goes nowhere.
static void check_writers(Report *report)
{
    static FILE *nowhere = NULL;
    json_t *root = json_object();
    if (nowhere == NULL)
        nowhere = fopen("/dev/null", "w");
    CHECK(nowhere != NULL && root != NULL, "/dev/null cannot be opened");
    report_scores_compare(report);
    CHECK(report_scores_print(nowhere, report) == OK, "%s", fail_text());
    report_scores_write_csv(nowhere, report);
    if (report->runs[0].evals.n > 0)
        report_scores_write_script(nowhere, report);
    CHECK(report_scores_set(root, report), "the page has no data");
    json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ReportRun run = {.dir = fuzz_dir(), .label = (char[]){"run"}, .original_cache = 640};
    Report report = {.runs = &run, .n_runs = 1};
    fuzz_file("eval.json", data, size);
    const Status status = report_evals_read(&run.evals, run.dir);
    if (status == OK) {
        for (int i = 0; i < run.evals.n; i++)
            check_eval(&run.evals.list[i]);
        check_writers(&report);
    } else {
        fuzz_check_refusal(status);
    }
    report_evals_release(&run.evals);
    return 0;
}
