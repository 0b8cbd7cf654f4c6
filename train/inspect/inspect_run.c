// A run as `compare` reads it, and which of its checkpoints it could be resumed from. The run may
// still be training while it is looked at.
#include "train/inspect/inspect.h"

#include "base/file.h"
#include "train/checkpoint/checkpoint.h"
#include "train/report/report_run.h"
#include "train/report/report_settings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// run.json is written before the first step, so a run that has just started has it.
bool inspect_is_run(const char *dir)
{
    char path[PATH_BYTES];
    return file_join(path, dir, "run.json") == OK && file_exists(path);
}

// KV cache in bytes at 16 bits per number, and its change against the original in percent.
static void print_model(const ReportRun *run, int64_t parameters)
{
    inspect_label("attention");
    if (run->latent > 0)
        printf("MLA, shared form: %lld slots by %s, a latent of %lld\n", (long long)run->rope_pairs,
               run->rope, (long long)run->latent);
    else if (run->is_mla)
        printf("MLA: d_kv %lld per KV head, %lld RoPE pairs by %s, %s SVD\n", (long long)run->d_kv,
               (long long)run->rope_pairs, run->rope, run->svd);
    else
        printf("the original one: a baseline\n");
    inspect_label("parameters");
    printf("%lld (%.2f M)\n", (long long)parameters, (double)parameters / 1e6);
    inspect_label("KV cache");
    printf("%lld bytes per token at 16 bits, original %lld: %+.2f %%\n", (long long)run->cache * 2,
           (long long)run->original_cache * 2, 100.0 * (report_run_share(run) - 1));
}

// These members are needed here alone, so they are read here and not by report_run_read().
static Status print_budget(const ReportRun *run, const char *path)
{
    int64_t step_tokens, seq_len, ranks, threads;
    TRY(json_get_int(&step_tokens, run->json, path, "tokens_per_step", 1, INT64_MAX));
    TRY(json_get_int(&seq_len, run->json, path, "seq_len", 1, INT32_MAX));
    TRY(json_get_int(&ranks, run->json, path, "ranks", 1, INT32_MAX));
    TRY(json_get_int(&threads, run->json, path, "threads", 1, INT32_MAX));
    const double tokens = (double)step_tokens * run->n_steps;
    inspect_label("budget");
    printf("%d steps of %lld tokens = %.4g M", run->n_steps, (long long)step_tokens, tokens / 1e6);
    if (run->pretraining_tokens > 0)
        printf(", %.3g %% of pretraining", 100 * tokens / (double)run->pretraining_tokens);
    printf("; sequences of %lld\n", (long long)seq_len);
    if (run->distill_tokens > 0) {
        inspect_label("distillation");
        printf("%.4g M tokens read before the first step, %.4g M in the steps of each layer\n",
               (double)run->distill_tokens / 1e6, (double)run->distill_trained_tokens / 1e6);
    }
    inspect_label("ranks");
    printf("%lld, %lld threads each\n", (long long)ranks, (long long)threads);
    if (!json_has(run->json, "products")) // written by an earlier version
        return OK;
    const char *products;
    TRY(json_get_line(&products, run->json, path, "products"));
    inspect_label("products");
    printf("%s\n", products);
    return OK;
}

static void print_loss(const char *what, double loss, int step)
{
    if (isnan(loss))
        return;
    inspect_label(what);
    printf("%.4f nats per token", loss);
    if (step >= 0)
        printf(" at step %d", step);
    putchar('\n');
}

// Hours, minutes and seconds of all processes together; the rate is the median of the steps.
static void print_progress(const ReportRun *run)
{
    static const char *const states[] = {
        [RUN_DONE] = "done", [RUN_RUNNING] = "running", [RUN_STOPPED] = "stopped"};
    // A damaged time must not overflow the conversion to an integer.
    const int64_t wall_s = (int64_t)fmin(run->wall_s, 1e15);
    inspect_label("progress");
    printf("%s, step %d of %d", states[run->state], report_run_last_step(run), run->n_steps);
    if (report_run_last_step(run) > 0)
        printf(", %.4g M tokens in %lld:%02d:%02d, %.0f tokens/s",
               (double)report_run_tokens(run) / 1e6, (long long)wall_s / 3600,
               (int)(wall_s / 60 % 60), (int)(wall_s % 60), run->tokens_per_s);
    if (run->n_resumed > 0)
        printf(", resumed %d time%s", run->n_resumed, run->n_resumed > 1 ? "s" : "");
    if (report_settings_next_change(run, -1) >= 0)
        printf(", with changed settings (see config.yaml)");
    putchar('\n');
}

// Training loss and validation losses by the rules of the report (train/report/): the lowest is
// chosen only among losses on the newest validation set, as those on other text cannot be compared.
static void print_losses(const ReportRun *run)
{
    const RunPoint *best = NULL, *newest = NULL, *trained = NULL;
    for (int i = 0; i < run->n_points; i++) {
        const RunPoint *point = &run->points[i];
        trained = isnan(point->loss) ? trained : point;
        newest = isnan(point->valid_loss) ? newest : point;
        if (newest == point && !report_run_is_earlier_set(run, point) &&
            (best == NULL || point->valid_loss < best->valid_loss))
            best = point;
    }
    if (trained != NULL)
        print_loss("loss", trained->loss, trained->step);
    printf("validation loss\n");
    print_loss("original", report_run_original_valid(run), -1);
    print_loss("at the start", report_run_start_valid(run), -1);
    if (newest == NULL) {
        printf("  not measured yet\n");
        return;
    }
    print_loss("lowest", best->valid_loss, best->step);
    print_loss("newest", newest->valid_loss, newest->step);
}

// Every step in checkpoints/, newest first, opened as a resume would open it; a directory that a
// save has left unfinished is listed with the reason. Files are held to their sizes, not read: that
// takes --verify on one checkpoint.
static Status print_checkpoints(const char *dir)
{
    int *steps, n_steps;
    TRY(checkpoint_list(&steps, &n_steps, dir));
    for (int i = 0; i < n_steps; i++) {
        char path[PATH_BYTES];
        Checkpoint checkpoint = {0};
        Status status = checkpoint_path(path, dir, steps[i]);
        if (status == OK)
            status = checkpoint_open(&checkpoint, path);
        inspect_label(i == 0 ? "checkpoints" : "");
        if (status == OK)
            printf("step %d\n", steps[i]);
        else
            printf("step %d, not whole: %s\n", steps[i], fail_text());
        checkpoint_close(&checkpoint);
    }
    free(steps);
    return OK;
}

// Only a model directory that has its config.json is complete.
static Status print_results(const char *dir)
{
    char model[PATH_BYTES], config[PATH_BYTES];
    TRY(file_join(model, dir, "model"));
    TRY(file_join(config, model, "config.json"));
    printf("results\n");
    TRY(print_checkpoints(dir));
    inspect_label("model");
    printf("%s\n", file_exists(config) ? model : "not exported yet");
    return OK;
}

static Status print_run(const ReportRun *run)
{
    char path[PATH_BYTES];
    int64_t parameters;
    TRY(file_join(path, run->dir, "run.json"));
    TRY(json_get_int(&parameters, run->json, path, "parameters", 1, INT64_MAX));
    printf("%s: run %s\n", run->dir, run->name);
    print_model(run, parameters);
    TRY(print_budget(run, path));
    print_progress(run);
    print_losses(run);
    return print_results(run->dir);
}

// Read as `compare` reads it, so both show the same figures.
Status inspect_run(const char *dir)
{
    ReportRun run;
    TRY(report_run_read(&run, dir));
    const Status status = print_run(&run);
    report_run_release(&run);
    return status;
}
