// metrics.jsonl: an input is two bytes - the checkpoint's step and that of its validation - and the
// file that a run left behind. A resumed run keeps whole lines of it, and doing so again takes
// nothing more away; `compare` refuses it in one line or has points whose steps and tokens ascend.
#include "tests/fuzz/fuzzing.h"

#include "base/file.h"
#include "train/metrics/metrics.h"
#include "train/report/report_run.h"

#include <math.h>
#include <string.h>

// What stays of the file after it has been opened by a run that resumes.
static FileMap resume(const MetricsStart *start, const char *path)
{
    const MetricsOptions options = {.run_dir = fuzz_dir(),
                                    .host = "host",
                                    .resumed = start,
                                    .valid_set = "5d1f08a3",
                                    .n_steps = 1000,
                                    .every = 10};
    Metrics metrics;
    FileMap map;
    CHECK(metrics_open(&metrics, &options) == OK, "%s", fail_text());
    metrics_close(&metrics);
    CHECK(file_map(&map, path) == OK, "%s", fail_text());
    return map;
}

static void check_resume(const FuzzInput *input, const MetricsStart *start, const char *path)
{
    FileMap once = resume(start, path);
    const size_t kept = (size_t)once.size_bytes;
    // Lines are cut, dropped or put in order; a newline may be added to the last one.
    CHECK(kept <= input->size + 1, "%zu bytes of %zu", kept, input->size);
    CHECK(kept == 0 || once.bytes[kept - 1] == '\n', "ends within a line");
    file_unmap(&once);
    FileMap twice = resume(start, path);
    CHECK((size_t)twice.size_bytes == kept, "%zu bytes, then %lld", kept,
          (long long)twice.size_bytes);
    file_unmap(&twice);
}

static bool has_scores(const ReportRun *run, int step)
{
    for (int i = 0; i < run->n_task_points; i++)
        if (run->task_points[i].step == step)
            return true;
    return false;
}

static void check_points(const ReportRun *run)
{
    for (int i = 0; i < run->n_points; i++) {
        const RunPoint *point = &run->points[i], *before = i > 0 ? point - 1 : NULL;
        CHECK(point->step >= 0 && point->tokens >= 0, "step %d", point->step);
        // One step has two points where it was validated on two sets.
        const bool is_other_set = before != NULL && before->valid_set >= 0 &&
                                  point->valid_set >= 0 && before->valid_set != point->valid_set;
        CHECK(before == NULL || before->step < point->step ||
                  (before->step == point->step && is_other_set),
              "step %d after %d", point->step, before->step);
        CHECK(before == NULL || before->tokens <= point->tokens, "tokens fall at step %d",
              point->step);
        CHECK(point->valid_set < run->n_valid_sets, "set %d of %d", point->valid_set,
              run->n_valid_sets);
        CHECK(!isnan(point->loss) || !isnan(point->valid_loss) || has_scores(run, point->step),
              "step %d without a loss or scores", point->step);
    }
    for (int i = 1; i < run->n_resumed; i++)
        CHECK(run->resumed[i - 1] < run->resumed[i], "resumed from %d twice", run->resumed[i]);
    CHECK(run->n_points > 0 || isnan(run->tokens_per_s), "a rate of nothing");
}

static void check_task_points(const ReportRun *run)
{
    for (int i = 0; i < run->n_task_points; i++) {
        const TaskPoint *point = &run->task_points[i];
        int k = 0;
        while (k < run->n_points && run->points[k].step != point->step)
            k++;
        CHECK(k < run->n_points, "scores at step %d, which is no point", point->step);
        CHECK(json_is_object(point->scores), "no scores at step %d", point->step);
        CHECK(i == 0 || run->task_points[i - 1].step < point->step, "scores at step %d twice",
              point->step);
    }
}

static void check_report(const char *path)
{
    ReportRun run = {.dir = fuzz_dir()};
    const Status status = report_run_read_metrics(&run, path);
    if (status == OK) {
        check_points(&run);
        check_task_points(&run);
    } else {
        fuzz_check_refusal(status);
    }
    report_run_release(&run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput input = {data, size};
    const int step = fuzz_take_byte(&input), valid_step = fuzz_take_byte(&input);
    const MetricsStart start = {step, valid_step <= step ? valid_step : -1, "5d1f08a3"};
    const char *path = fuzz_file("metrics.jsonl", input.bytes, input.size);
    check_report(path);
    check_resume(&input, &start, path);
    return 0;
}
