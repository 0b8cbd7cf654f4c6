#include "train/metrics.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Status metrics_open(Metrics *out, const char *run_dir, int n_steps, int every)
{
    char path[PATH_BYTES];
    TRY(file_join(path, run_dir, "metrics.jsonl"));
    FILE *file = fopen(path, "wbe");
    if (file == NULL)
        return fail(FAILED, "%s: cannot be written: %s", path, strerror(errno));
    const char *term = getenv("TERM");
    *out = (Metrics){
        .file = file,
        .start_s = log_seconds(),
        .n_steps = n_steps,
        .every = every,
        .is_terminal = isatty(STDERR_FILENO) && (term == NULL || strcmp(term, "dumb") != 0),
    };
    return OK;
}

// Writes one line and hands it to the system at once, so that a killed run keeps it.
static Status write_line(Metrics *metrics, json_t *object)
{
    if (object == NULL) // JSON has no NaN
        return fail(FAILED, "metrics.jsonl: no memory for a line, or a value that is not finite");
    bool written = json_dumpf(object, metrics->file, JSON_COMPACT) == 0 &&
                   fputc('\n', metrics->file) != EOF && fflush(metrics->file) == 0;
    int error = errno;
    json_decref(object);
    return written ? OK : fail(FAILED, "metrics.jsonl: write failed: %s", strerror(error));
}

static void print_step(Metrics *metrics, const StepReport *report, double valid_loss, double rate)
{
    double now_s = log_seconds();
    bool is_last = report->step == metrics->n_steps;
    bool is_due = metrics->is_terminal ? now_s - metrics->last_line_s > 0.2
                                       : report->step % metrics->every == 0;
    if (!is_due && !is_last)
        return;
    metrics->last_line_s = now_s;
    char valid[32] = "";
    if (!isnan(valid_loss))
        snprintf(valid, sizeof valid, "  valid %.4f", valid_loss);
    int64_t left_s =
        (int64_t)((now_s - metrics->start_s) / report->step * (metrics->n_steps - report->step));
    fprintf(stderr,
            "%sstep %d/%d  loss %.4f%s  norm %.3f  lr %.2e  %.0f tokens/s  data %.1f %%  "
            "%lld:%02d:%02d left%s",
            metrics->is_terminal ? "\r\033[K" : "mha2mla: ", report->step, metrics->n_steps,
            report->loss, valid, report->grad_norm, report->lr, rate,
            100 * report->data_wait_s / report->step_s, (long long)left_s / 3600,
            (int)(left_s / 60 % 60), (int)(left_s % 60),
            metrics->is_terminal && !is_last ? "" : "\n");
    metrics->line_open = metrics->is_terminal && !is_last;
}

Status metrics_step(Metrics *metrics, const StepReport *report, double valid_loss)
{
    if (metrics->file == NULL)
        return OK;
    double elapsed_s = log_seconds() - metrics->start_s;
    double rate = (double)report->tokens / report->step / report->step_s;
    print_step(metrics, report, valid_loss, rate);
    return write_line(metrics,
                      json_pack("{s:i, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "step", report->step,
                                "tokens", (json_int_t)report->tokens, "loss", report->loss,
                                "grad_norm", report->grad_norm, "lr", report->lr, "tokens_per_s",
                                rate, "data_wait_s", report->data_wait_s, "elapsed_s", elapsed_s));
}

static void end_live_line(Metrics *metrics)
{
    if (metrics->line_open)
        fputc('\n', stderr);
    metrics->line_open = false;
}

Status metrics_validation(Metrics *metrics, int step, int64_t tokens, double valid_loss)
{
    if (metrics->file == NULL)
        return OK;
    end_live_line(metrics);
    log_info("step %d: validation loss %.4f", step, valid_loss);
    return write_line(metrics, json_pack("{s:i, s:I, s:f}", "step", step, "tokens",
                                         (json_int_t)tokens, "valid_loss", valid_loss));
}

void metrics_close(Metrics *metrics)
{
    end_live_line(metrics);
    if (metrics->file != NULL)
        fclose(metrics->file);
    *metrics = (Metrics){0};
}
