// run.json: `compare` and `inspect` refuse it in one line or read it, and a resumed run takes its
// history of settings from it or begins a new one. Beside it lies a metrics.jsonl that is whole.
#include "tests/fuzz/fuzzing.h"

#include "base/file.h"
#include "train/inspect/inspect.h"
#include "train/job/config_history.h"
#include "train/report/report_run.h"

#include <stdio.h>
#include <string.h>

static const char metrics[] =
    "{\"step\":0,\"tokens\":0,\"valid_loss\":3.5}\n"
    "{\"step\":1,\"tokens\":64,\"loss\":3.25,\"lr\":0.001,\"tokens_per_s\":512,\"elapsed_s\":1.5}\n"
    "{\"step\":2,\"tokens\":128,\"loss\":3.0,\"lr\":0.001,\"tokens_per_s\":511,\"elapsed_s\":2.5}\n"
    "{\"step\":2,\"tokens\":128,\"valid_loss\":3.125}\n";

static void check_line(const char *text)
{
    for (; *text != '\0'; text++)
        CHECK((unsigned char)*text >= ' ' && *text != 0x7f, "a control character in a name");
}

static void check_report(void)
{
    ReportRun run;
    const Status status = report_run_read(&run, fuzz_dir());
    if (status != OK) {
        fuzz_check_refusal(status);
        return;
    }
    check_line(run.name);
    check_line(run.rope);
    check_line(run.svd);
    CHECK(run.cache > 0 && run.original_cache > 0 && run.n_steps >= 0, "counts");
    CHECK(run.d_kv >= 0 && run.rope_pairs >= 0 && run.pretraining_tokens >= 0, "counts");
    report_run_release(&run);
}

// What it prints goes nowhere.
static void check_inspect(void)
{
    static FILE *nowhere = NULL;
    FILE *shown = stdout;
    if (nowhere == NULL)
        nowhere = fopen("/dev/null", "w");
    CHECK(nowhere != NULL, "/dev/null cannot be opened");
    stdout = nowhere;
    const Status status = inspect_run(fuzz_dir());
    stdout = shown;
    if (status != OK)
        fuzz_check_refusal(status);
}

static void check_history(void)
{
    static RunDir dir = {.is_resumed = true};
    const Config config = {.run.name = (char *)(uintptr_t) "run"};
    ConfigHistory history;
    snprintf(dir.path, sizeof dir.path, "%s", fuzz_dir());
    dir.checkpoint.manifest.state.step = 1;
    CHECK(config_history_read(&history, &dir, &config) == OK, "%s", fail_text());
    CHECK(json_is_object(history.config) && json_is_array(history.changes), "no history");
    CHECK(history.n_earlier <= (int)json_array_size(history.changes), "%d earlier changes",
          history.n_earlier);
    CHECK(config_history_log(&history) == OK, "%s", fail_text());
    config_history_release(&history);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool has_metrics = false;
    if (!has_metrics)
        fuzz_file("metrics.jsonl", metrics, strlen(metrics));
    has_metrics = true;
    fuzz_file("run.json", data, size);
    check_report();
    check_inspect();
    check_history();
    return 0;
}
