// metrics.jsonl is the record of a run and grows over all its processes, so three things are kept:
// a line is whole or absent (a write that fails midway is truncated away); after a resume no step
// is in it twice (the lines after the checkpoint's step are cut off, since those steps are trained
// again); and a full disk, which the next pruning of checkpoints may end, does not stop the
// training. Lines are written but not synced; metrics_sync() is called before every checkpoint, so
// a checkpoint never counts on lines that a crash of the machine could take away.
#include "train/metrics/metrics.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "train/metrics/metrics_resume.h"
#include "train/metrics/step_line.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PENDING_BYTES = 1 << 22 }; // about 20,000 lines kept in memory while the disk is full
static const double LIVE_S = 0.2;     // between updates of the live line

static void set_text(char out[METRICS_SET_BYTES], const char *text)
{
    snprintf(out, METRICS_SET_BYTES, "%s", text != NULL ? text : "");
}

// Opens the file for appending, truncated to size_bytes. O_APPEND: every write goes to the end of
// the file, even after another truncation.
static Status open_file(int *out, const char *path, int64_t size_bytes)
{
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file < 0)
        return fail(FAILED, "%s: cannot be written: %s", path, strerror(errno));
    if (ftruncate(file, size_bytes) != 0) {
        close(file);
        return fail(FAILED, "%s: cannot be cut to %lld bytes: %s", path, (long long)size_bytes,
                    strerror(errno));
    }
    *out = file;
    return OK;
}

Status metrics_open(Metrics *out, const MetricsOptions *options)
{
    char path[PATH_BYTES];
    const MetricsStart *resumed = options->resumed;
    Metrics metrics = {
        .is_open = true,
        .start_s = log_seconds(),
        .first_step = resumed != NULL ? resumed->step + 1 : 1,
        .n_steps = options->n_steps,
        .every = options->every,
        .is_terminal = log_is_terminal(),
        .step_flops = options->step_flops,
        .machine_flops = options->machine_flops,
        .products = options->products,
    };
    EarlierMetrics earlier = {.tasks_step = -1};
    TRY(file_join(path, options->run_dir, "metrics.jsonl"));
    if (resumed != NULL)
        TRY(metrics_resume(&earlier, path, resumed));
    if (resumed != NULL && earlier.last_step < resumed->step)
        log_warn("%s: has lines up to step %lld only, the run continues after step %d", path,
                 (long long)earlier.last_step, resumed->step);
    metrics.size_bytes = earlier.size_bytes;
    metrics.earlier_s = earlier.elapsed_s;
    metrics.tasks_step = earlier.tasks_step;
    set_text(metrics.valid_set, options->valid_set);
    set_text(metrics.first_valid_set,
             earlier.first_valid_set[0] != '\0' ? earlier.first_valid_set : options->valid_set);
    TRY(open_file(&metrics.file, path, metrics.size_bytes));
    // Last of what can fail, as an event file that was begun cannot be taken back.
    if (options->tensorboard) {
        Status status =
            tensorboard_open(&metrics.board, options->run_dir, options->host, (double)time(NULL),
                             resumed != NULL ? resumed->step + 1 : 0);
        if (status != OK) {
            close(metrics.file);
            return status;
        }
    }
    *out = metrics;
    return OK;
}

// Appends whole lines or nothing: if a write fails midway, what it has written is truncated away.
static bool write_all(Metrics *metrics, const char *text)
{
    const size_t length = strlen(text);
    size_t done = 0;
    while (done < length) {
        ssize_t n = write(metrics->file, text + done, length - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    if (done < length) {
        const int error = errno; // which ftruncate() may change
        if (ftruncate(metrics->file, metrics->size_bytes) != 0)
            metrics->size_bytes += (int64_t)done; // part of a line stays
        errno = error;
        return false;
    }
    metrics->size_bytes += (int64_t)length;
    return true;
}

// Adds a line to the pending ones; frees `line`. Usually there are none, and the line is written at
// once.
static Status append_pending(Metrics *metrics, char *line)
{
    const size_t before = metrics->pending != NULL ? strlen(metrics->pending) : 0;
    char *all = realloc(metrics->pending, before + strlen(line) + 2);
    if (all == NULL) {
        free(line);
        return fail(FAILED, "metrics.jsonl: no memory for a line");
    }
    strcpy(all + before, line);
    strcat(all + before, "\n");
    free(line);
    metrics->pending = all;
    return OK;
}

// Writes the pending lines; false with errno set if that fails.
static bool flush_pending(Metrics *metrics)
{
    if (metrics->pending == NULL)
        return true;
    if (!write_all(metrics, metrics->pending))
        return false;
    free(metrics->pending);
    metrics->pending = NULL;
    return true;
}

// Hands a line to the kernel at once, so that a killed run keeps it. While the disk is full, as it
// may be until an old checkpoint is removed, lines are kept in memory.
static Status write_line(Metrics *metrics, json_t *object)
{
    if (object == NULL) // JSON has no NaN
        return fail(FAILED, "metrics.jsonl: no memory for a line, or a value that is not finite");
    char *line = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (line == NULL)
        return fail(FAILED, "metrics.jsonl: no memory for a line");
    const bool has_waited = metrics->pending != NULL;
    TRY(append_pending(metrics, line));
    if (flush_pending(metrics))
        return OK;
    if (errno != ENOSPC && errno != EDQUOT)
        return fail(FAILED, "metrics.jsonl: write failed: %s", strerror(errno));
    if (strlen(metrics->pending) > MAX_PENDING_BYTES)
        return fail(FAILED, "metrics.jsonl: the disk stays full; free some space and start again");
    if (!has_waited)
        log_warn(
            "metrics.jsonl: the disk is full; its lines are kept in memory until there is space");
    return OK;
}

// EINVAL: the file is a pipe or the like, which cannot be synced.
Status metrics_sync(Metrics *metrics)
{
    if (!metrics->is_open)
        return OK;
    if (flush_pending(metrics) && (fsync(metrics->file) == 0 || errno == EINVAL))
        return OK;
    return fail(FAILED, "metrics.jsonl: write failed: %s", strerror(errno));
}

// On a terminal the live line is updated by time, since it replaces itself; in a log every line
// stays, so they come by steps. The last step always has one.
static bool line_is_due(Metrics *metrics, int step)
{
    const double now_s = log_seconds();
    const bool is_due =
        metrics->is_terminal ? now_s - metrics->last_line_s > LIVE_S : step % metrics->every == 0;
    if (!is_due && step != metrics->n_steps)
        return false;
    metrics->last_line_s = now_s;
    return true;
}

// The time left is estimated from all steps of this process, as single steps differ: some validate
// or save.
static void print_step(Metrics *metrics, const StepReport *report, double rate)
{
    if (!line_is_due(metrics, report->step))
        return;
    char line[512];
    const int n_done = report->step - metrics->first_step + 1;
    const double each_s = (log_seconds() - metrics->start_s) / n_done;
    const StepLine shown = {
        .report = report,
        .n_steps = metrics->n_steps,
        .tokens_per_s = rate,
        .products = metrics->products,
        .products_share = metrics->machine_flops > 0
                              ? metrics->step_flops / report->step_s / metrics->machine_flops
                              : NAN,
        .left_s = each_s * (metrics->n_steps - report->step),
    };
    step_line_write(line, sizeof line, &shown, metrics->is_terminal ? log_columns() - 1 : INT_MAX);
    if (!metrics->is_terminal) {
        log_info("%s", line);
        return;
    }
    log_live(line);
    if (report->step == metrics->n_steps)
        log_live_end(true);
}

// The members' names are the file's format: `compare` and users' scripts read them. Times are in
// seconds, rates in tokens per second over all ranks.
static json_t *step_to_json(const Metrics *metrics, const StepReport *report, double rate)
{
    const double elapsed_s = metrics->earlier_s + log_seconds() - metrics->start_s;
    json_t *line = json_pack("{s:i, s:I, s:f}", "step", report->step, "tokens",
                             (json_int_t)report->tokens, "loss", report->loss);
    json_t *losses = json_pack("{s:f, s:f, s:f}", "ce", report->ce, "kl", report->kl,
                               "attention_mse", report->attention_mse);
    json_t *rest =
        json_pack("{s:f, s:f, s:f, s:f, s:f}", "grad_norm", report->grad_norm, "lr", report->lr,
                  "tokens_per_s", rate, "data_wait_s", report->data_wait_s, "elapsed_s", elapsed_s);
    if (report->has_teacher)
        json_object_update(line, losses);
    json_object_update(line, rest);
    json_decref(losses);
    json_decref(rest);
    if (line == NULL)
        return NULL;
    for (int i = 0; i < N_PHASES; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s_s", phases_name((Phase)i));
        if (report->phase_s[i] > 0) // most steps neither save nor validate
            json_object_set_new(line, key, json_real(report->phase_s[i]));
    }
    if (report->is_skipped)
        json_object_set_new(line, "skipped", json_true());
    return line;
}

// TensorBoard's scalars are float32; metrics.jsonl has the doubles.
static void draw_step(Metrics *metrics, const StepReport *report, double rate)
{
    const TensorBoardScalar scalars[] = {
        {"train/loss", (float)report->loss},
        {"train/grad_norm", (float)report->grad_norm},
        {"train/lr", (float)report->lr},
        {"train/tokens_per_s", (float)rate},
    };
    const TensorBoardScalar parts[] = {
        {"train/ce", (float)report->ce},
        {"train/kl", (float)report->kl},
        {"train/attention_mse", (float)report->attention_mse},
    };
    tensorboard_write(&metrics->board, (double)time(NULL), report->step, scalars,
                      sizeof scalars / sizeof *scalars);
    if (report->has_teacher)
        tensorboard_write(&metrics->board, (double)time(NULL), report->step, parts,
                          sizeof parts / sizeof *parts);
}

// Rank 0 alone; on the others nothing is open and nothing is done.
Status metrics_step(Metrics *metrics, const StepReport *report)
{
    if (!metrics->is_open)
        return OK;
    const double rate = (double)report->tokens / report->step / report->step_s;
    print_step(metrics, report, rate);
    if (report->is_skipped)
        log_warn("step %d: skipped, its gradient norm %.4g is a spike", report->step,
                 report->grad_norm);
    draw_step(metrics, report, rate);
    return write_line(metrics, step_to_json(metrics, report, rate));
}

// No phases and no rate: a validation is timed as a phase of the step it follows.
Status metrics_validation(Metrics *metrics, int step, int64_t tokens, double valid_loss)
{
    if (!metrics->is_open)
        return OK;
    // Another set is another curve.
    char tag[32] = "valid/loss";
    if (strcmp(metrics->valid_set, metrics->first_valid_set) != 0)
        snprintf(tag, sizeof tag, "valid/loss-%s", metrics->valid_set);
    const TensorBoardScalar scalar = {tag, (float)valid_loss};
    log_info("step %d: validation loss %.4f", step, valid_loss);
    tensorboard_write(&metrics->board, (double)time(NULL), step, &scalar, 1);
    return write_line(metrics,
                      json_pack("{s:i, s:I, s:f, s:s}", "step", step, "tokens", (json_int_t)tokens,
                                "valid_loss", valid_loss, "validation_set", metrics->valid_set));
}

Status metrics_tasks(Metrics *metrics, int step, int64_t tokens, const TaskValue *tasks,
                     int n_tasks)
{
    if (!metrics->is_open || metrics->tasks_step == step)
        return OK;
    char text[512] = "";
    json_t *scores = json_object();
    for (int i = 0; i < n_tasks; i++) {
        char tag[96];
        snprintf(tag, sizeof tag, "tasks/%s", tasks[i].name);
        const TensorBoardScalar scalar = {tag, (float)tasks[i].score};
        const size_t size = strlen(text);
        snprintf(text + size, sizeof text - size, "%s%s %.4f", i > 0 ? ", " : "", tasks[i].name,
                 tasks[i].score);
        tensorboard_write(&metrics->board, (double)time(NULL), step, &scalar, 1);
        json_object_set_new(scores, tasks[i].name, json_real(tasks[i].score));
    }
    log_info("step %d: %s", step, text);
    metrics->tasks_step = step;
    return write_line(metrics, json_pack("{s:i, s:I, s:o}", "step", step, "tokens",
                                         (json_int_t)tokens, "tasks", scores));
}

// Also for a Metrics of zeros, as the ranks above 0 have it.
void metrics_close(Metrics *metrics)
{
    if (metrics->is_open)
        log_live_end(true);
    tensorboard_close(&metrics->board);
    if (metrics->is_open && !flush_pending(metrics))
        log_warn("metrics.jsonl: its last lines are lost: %s", strerror(errno));
    if (metrics->is_open)
        close(metrics->file);
    free(metrics->pending);
    *metrics = (Metrics){0};
}
