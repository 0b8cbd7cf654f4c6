// A rank sums the gradients of a group of micro-batches in one flat vector; at the end of a round
// each bucket of it goes, share by share, to the rank that owns the share, which adds the groups in
// their order (train/turns.h). Losses of micro-batches and squares of blocks of the gradient meet
// in a vector in which every rank fills its own places, so their sums do not depend on the number
// of ranks either. Then each rank updates its shares and the shares are gathered.
#include "train/loop.h"

#include "base/log.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "train/feed.h"
#include "train/guard.h"
#include "train/stall.h"
#include "train/stop.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

_Static_assert((int)COMM_SHARE_BLOCK == (int)CLIP_BLOCK,
               "shares are cut where blocks of squares are");

// From here on this is what the rank does.
static void enter(Trainer *t, Phase phase, int step)
{
    stall_phase(phases_name(phase), step);
    phases_enter(&t->phases, phase);
}

static bool validation_is_due(const Trainer *t)
{
    const int step = t->progress.step, every = t->config->data.validation.every;
    return t->validation.source != NULL && t->progress.valid_step != step &&
           (step == 0 || step == t->config->train.steps || (every > 0 && step % every == 0));
}

static Status validate(Trainer *t)
{
    const int step = t->progress.step;
    double loss;
    enter(t, PHASE_VALIDATION, step);
    TRY(validation_loss(&loss, &t->validation, t->comm, &t->memory.ws, &t->memory.batch, t->model));
    t->progress.valid_loss = loss;
    t->progress.valid_step = step;
    return comm_agree(
        t->comm, metrics_validation(t->context.metrics, step, step * trainer_step_tokens(t), loss));
}

static int64_t first_sample(const Trainer *t, int step, int micro_batch)
{
    const TrainConfig *train = &t->config->train;
    return (int64_t)(step - 1) * train->global_batch + (int64_t)micro_batch * train->micro_batch;
}

// Reads this rank's micro-batches ahead from a step on; what was read ahead before is dropped.
static Status feed(Trainer *t, int first_step)
{
    prefetch_stop(t->prefetch);
    t->prefetch = NULL;
    return feed_start(&t->prefetch, t->mixture, &t->memory.ahead, t->config, &t->turns,
                      t->comm->rank, first_step);
}

// Takes micro-batch m of a step.
static Status batch(Trainer *t, int step, int m)
{
    enter(t, PHASE_DATA, step);
    int64_t first;
    TRY(prefetch_next(t->prefetch, &t->batch, &first));
    CHECK(first == first_sample(t, step, m), "step %d, micro-batch %d: sample %lld", step, m,
          (long long)first);
    return OK;
}

// Leaves the loss among the step's sums and the gradient at the head for backward.
static void forward(Trainer *t, int step, int m)
{
    TrainerMemory *mem = &t->memory;
    float scale = 1.0f / (float)trainer_step_tokens(t);
    enter(t, PHASE_FORWARD, step);
    transformer_forward(&mem->ws, t->model, t->batch->inputs, NULL);
    mem->sums[partition_n_blocks(&t->partition) + m] =
        transformer_loss(&mem->ws, t->model, t->batch->targets, scale, &t->grads);
}

static void backward(Trainer *t, int step)
{
    enter(t, PHASE_BACKWARD, step);
    transformer_backward(&t->memory.ws, t->model, t->batch->inputs, &t->grads);
}

// Batch, forward and backward of this rank's group; the gradients of its micro-batches add up.
static Status accumulate(Trainer *t, int step, int round)
{
    int first, count;
    turns_group(&t->turns, round, t->comm->rank, &first, &count);
    enter(t, PHASE_BACKWARD, step); // whose sum begins
    memset(t->memory.flat_grads, 0, (size_t)t->grads.count * sizeof(float));
    for (int m = first; m < first + count; m++) {
        TRY(batch(t, step, m));
        forward(t, step, m);
        backward(t, step);
    }
    return OK;
}

// This rank's share of the step's gradient in a bucket.
static float *own_sum(const Trainer *t, const Bucket *bucket)
{
    const TrainerMemory *mem = &t->memory;
    return mem->own_sums != NULL ? mem->own_sums + bucket->moments_first
                                 : mem->flat_grads + bucket->own_first;
}

// Adds the round's groups to the sums, each rank for its shares.
static void reduce(Trainer *t, int round)
{
    for (int i = 0; i < t->partition.n_buckets; i++) {
        const Bucket *bucket = &t->partition.buckets[i];
        comm_reduce_scatter(t->comm, own_sum(t, bucket), t->memory.flat_grads + bucket->first,
                            bucket->count, turns_senders(&t->turns, round), round == 0,
                            t->memory.received);
    }
}

static double sum_up(const double *values, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += values[i];
    return sum;
}

// After the last round: the step's mean loss and global norm, the longest wait for data and the
// mean time of the phases, on all ranks alike.
static void measure(Trainer *t, StepReport *report)
{
    double *squares = t->memory.sums;
    const int64_t n_squares = partition_n_blocks(&t->partition);
    int64_t first_block = 0;
    for (int i = 0; i < t->partition.n_buckets; i++) {
        const Bucket *bucket = &t->partition.buckets[i];
        int64_t own_block = first_block + (bucket->own_first - bucket->first) / CLIP_BLOCK;
        clip_sum_squares(squares + own_block, own_sum(t, bucket), bucket->own_count);
        first_block += clip_n_blocks(bucket->count);
    }
    double *waits = squares + n_squares + t->turns.n_micro_batches;
    double *phases = waits + t->comm->size;
    waits[t->comm->rank] = report->data_wait_s;
    phases_take(&t->phases, phases);
    comm_sum_doubles(t->comm, t->memory.sums, trainer_n_sums(&t->partition, &t->turns));
    for (int rank = 0; rank < t->comm->size; rank++)
        report->data_wait_s = fmax(report->data_wait_s, waits[rank]);
    for (int i = 0; i < N_PHASES; i++)
        report->phase_s[i] = phases[i] / t->comm->size;
    report->grad_norm = sqrt(sum_up(squares, n_squares));
    report->loss =
        sum_up(squares + n_squares, t->turns.n_micro_batches) / (double)trainer_step_tokens(t);
}

// Runs this rank's micro-batches of a step alone: their losses, norms and the rank go to their
// places in traced [3, micro-batches].
static Status trace_own(Trainer *t, int step, double *traced)
{
    const int n = t->turns.n_micro_batches;
    double *squares = t->memory.sums;
    TRY(feed(t, step));
    for (int round = 0; round < t->turns.n_rounds; round++) {
        int first, count;
        turns_group(&t->turns, round, t->comm->rank, &first, &count);
        for (int m = first; m < first + count; m++) {
            memset(t->memory.flat_grads, 0, (size_t)t->grads.count * sizeof(float));
            TRY(batch(t, step, m));
            forward(t, step, m);
            backward(t, step);
            traced[m] = squares[partition_n_blocks(&t->partition) + m] /
                        (double)(t->memory.batch.B * t->memory.batch.T);
            clip_sum_squares(squares, t->memory.flat_grads, t->grads.count);
            traced[n + m] = sqrt(sum_up(squares, clip_n_blocks(t->grads.count)));
            traced[2 * n + m] = t->comm->rank;
        }
    }
    return OK;
}

// What the trace of all ranks says, as an error.
static Status report_trace(const Trainer *t, const StepReport *report, const double *traced,
                           GuardMicroBatch *micro_batches)
{
    const int n = t->turns.n_micro_batches;
    for (int m = 0; m < n; m++) {
        GuardMicroBatch *to = &micro_batches[m];
        *to = (GuardMicroBatch){.rank = (int)traced[2 * n + m],
                                .first_sample = first_sample(t, report->step, m),
                                .n_samples = t->memory.batch.B,
                                .loss = traced[m],
                                .grad_norm = traced[n + m]};
        mixture_describe(t->mixture, to->first_sample, to->source, sizeof to->source);
    }
    char name[64], path[PATH_BYTES];
    snprintf(name, sizeof name, "nonfinite-step-%d.json", report->step);
    TRY(file_join(path, t->context.run_dir, name));
    const GuardTrace trace = {.step = report->step,
                              .loss = report->loss,
                              .grad_norm = report->grad_norm,
                              .micro_batches = micro_batches,
                              .count = n,
                              .file = path};
    return guard_report_nonfinite(&trace, t->comm->rank == 0);
}

// The step is not finite: why. The weights are those before it, the gradients are lost.
static Status trace_nonfinite(Trainer *t, const StepReport *report)
{
    const int n = t->turns.n_micro_batches;
    double *traced = calloc((size_t)n * 3, sizeof *traced);
    GuardMicroBatch *micro_batches = calloc((size_t)n, sizeof *micro_batches);
    Status status = traced != NULL && micro_batches != NULL
                        ? trace_own(t, report->step, traced)
                        : fail(FAILED,
                               "step %d: loss or gradient is not finite, and no memory to "
                               "trace why",
                               report->step);
    TRY_GOTO(release, comm_agree(t->comm, status));
    comm_sum_doubles(t->comm, traced, (int64_t)n * 3);
    status = comm_agree(t->comm, report_trace(t, report, traced, micro_batches));
release:
    free(micro_batches);
    free(traced);
    return status;
}

// Every rank sees the same norm, so every rank decides the same.
static Status guard(Trainer *t, StepReport *report)
{
    const TrainConfig *train = &t->config->train;
    if (!isfinite(report->grad_norm) || !isfinite(report->loss))
        return trace_nonfinite(t, report);
    return guard_check_spike(&report->is_skipped, &t->progress.spikes, report->step,
                             report->grad_norm, train->skip_spikes, train->spike_window);
}

static void update(Trainer *t, const StepReport *report)
{
    const OptimConfig *optim = &t->config->optim;
    double scale = clip_scale(report->grad_norm, optim->clip);
    float *params = t->model->params.flat;
    const int n_updates = report->step - (int)t->progress.spikes.n_skipped;
    for (int i = 0; i < t->partition.n_buckets; i++) {
        const Bucket *bucket = &t->partition.buckets[i];
        adamw_update(params + bucket->own_first, t->memory.m + bucket->moments_first,
                     t->memory.v + bucket->moments_first, own_sum(t, bucket), bucket->own_count,
                     &optim->adamw, report->lr, scale, n_updates);
    }
    partition_gather(&t->partition, t->comm, t->model->params.flat);
}

// STOPPED after a whole step, too, if a stop is asked for.
static Status train_step(Trainer *t, int step)
{
    TrainerMemory *mem = &t->memory;
    const double start_s = log_seconds(), waited_s = prefetch_wait_s(t->prefetch);
    StepReport report = {
        .step = step,
        .tokens = step * trainer_step_tokens(t),
        .lr = schedule_lr(&t->config->optim.schedule, step),
    };
    memset(mem->sums, 0, (size_t)trainer_n_sums(&t->partition, &t->turns) * sizeof(double));
    for (int round = 0; round < t->turns.n_rounds; round++) {
        Status status = accumulate(t, step, round);
        enter(t, PHASE_REDUCE, step);
        TRY(comm_agree(t->comm, status));
        reduce(t, round);
        enter(t, PHASE_SAVE, step);
        TRY(saver_poll(&t->saver));
    }
    enter(t, PHASE_REDUCE, step);
    report.data_wait_s = prefetch_wait_s(t->prefetch) - waited_s;
    measure(t, &report);
    TRY(guard(t, &report));
    enter(t, PHASE_SAVE, step);
    TRY(saver_finish(&t->saver)); // of the state that changes now
    enter(t, PHASE_UPDATE, step);
    if (!report.is_skipped)
        update(t, &report);
    t->progress.step = step;
    t->progress.loss = report.loss;
    t->progress.grad_norm = report.grad_norm;
    report.valid_loss = t->progress.valid_loss;
    report.valid_step = t->progress.valid_step;
    report.n_skipped = t->progress.spikes.n_skipped;
    report.step_s = log_seconds() - start_s;
    Status status = metrics_step(t->context.metrics, &report);
    return comm_agree(t->comm, status == OK ? stop_check() : status);
}

static Status save(Trainer *t)
{
    enter(t, PHASE_SAVE, t->progress.step);
    TRY(saver_finish(&t->saver)); // its text would hide that of the metrics
    Status ready = comm_agree(t->comm, metrics_sync(t->context.metrics));
    return saver_begin(&t->saver, &t->progress, ready);
}

// The state of a run that is stopped, if it is not on the disk already.
static Status save_and_stop(Trainer *t)
{
    char cause[64];
    snprintf(cause, sizeof cause, "%s", fail_text());
    enter(t, PHASE_SAVE, t->progress.step);
    TRY(saver_finish(&t->saver));
    if (t->saver.saved_step != t->progress.step) {
        t->saver.is_needed = true; // the run does not go on
        Status status = save(t);
        if (status == OK)
            status = saver_finish(&t->saver);
        if (status != OK)
            return fail_within(status, "stopped by %s", cause);
    }
    return fail(STOPPED, "%s", cause);
}

static bool checkpoint_is_due(const Trainer *t)
{
    const int step = t->progress.step, every = t->config->checkpoint.every;
    if (t->saver.saved_step == step)
        return false;
    if (step == 0) // a conversion may have taken long
        return every > 0 && t->config->model.convert.given && t->config->train.steps > 0;
    return step == t->config->train.steps || (every > 0 && step % every == 0);
}

// What follows a step: measuring, saving and telling where the time went, where they are due.
static Status settle(Trainer *t)
{
    const int every = t->config->log.phases;
    if (validation_is_due(t))
        TRY(validate(t));
    if (checkpoint_is_due(t))
        TRY(save(t));
    if (every > 0 && t->progress.step % every == 0)
        phases_report(&t->phases, t->comm, t->progress.step);
    return OK;
}

// A save that is under way is of a good state, whatever has ended the run since, on all ranks
// alike.
static Status finish_after(Trainer *t, Status status)
{
    char text[2048];
    enter(t, PHASE_SAVE, t->progress.step);
    if (status == OK)
        return saver_finish(&t->saver);
    snprintf(text, sizeof text, "%s", fail_text());
    saver_finish(&t->saver);
    return fail(status, "%s", text);
}

// Ends as it should, or with what ended it, on all ranks alike.
static Status run_steps(Trainer *t)
{
    Status status = feed(t, t->progress.step + 1);
    feed_warn_epochs(t->mixture, t->config);
    status = comm_agree(t->comm, status == OK ? stop_check() : status);
    if (status == OK)
        status = settle(t);
    while (status == OK && t->progress.step < t->config->train.steps) {
        status = train_step(t, t->progress.step + 1);
        if (status == OK)
            status = settle(t);
    }
    if (status == STOPPED)
        return save_and_stop(t);
    status = finish_after(t, status);
    if (status == OK)
        feed_report_epochs(t->mixture, t->config);
    return status;
}

Status loop_run(Trainer *t)
{
    phases_start(&t->phases, t->progress.step);
    const Status status = run_steps(t);
    phases_leave(&t->phases);
    if (status == OK || status == STOPPED)
        phases_report_all(&t->phases, t->comm, t->progress.step);
    return status;
}
