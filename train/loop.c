// A rank sums the gradients of a group of micro-batches in one flat vector; each bucket of it goes,
// share by share, to the rank that owns the share, which adds the groups in their order
// (train/parallel/batch_schedule.h). Losses of micro-batches and squares of blocks of the gradient
// meet in a vector in which every rank fills its own places, so their sums do not depend on the
// number of ranks either. Then each rank updates its shares and the shares are gathered, or, where
// ranks share one copy of the parameters (train/replica.h), are there: no rank reads parameters
// between the step's sums, which need all ranks' gradients, and its update.
//
// With train.overlap a bucket goes as soon as the last backward of the round has made it final,
// from the last layer to the first and the embedding, and the round's last ones go behind the first
// forward of the next round; updated parameters come behind the next step's forward, in the order
// in which it reads them. What stays exposed is the embedding: if it is the head, too, its gradient
// is final last, and its parameters are needed first. While anything is on its way this thread does
// not talk to the other ranks, so they do not agree after each step: who wants to end the run says
// so in the sums of the next one.
#include "train/loop.h"

#include "base/log.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "train/feed.h"
#include "train/guard.h"
#include "train/parallel/watchdog.h"
#include "train/stop.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

_Static_assert((int)COMM_SHARE_BLOCK == (int)CLIP_BLOCK,
               "shares are cut where blocks of squares are");

// From here on this is what the rank does.
static void enter(Trainer *t, Phase phase, int step)
{
    watchdog_phase(phases_name(phase), step);
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
    return feed_start(&t->prefetch, t->mixture, &t->memory.ahead, t->config, &t->schedule,
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

// Of the layers.
static void forward(Trainer *t, int step)
{
    enter(t, PHASE_FORWARD, step);
    transformer_forward(&t->memory.ws, t->model, t->batch->inputs, NULL);
}

// Leaves the loss among the step's sums and the gradient at the head for backward.
static void loss(Trainer *t, int step, int m)
{
    TrainerMemory *mem = &t->memory;
    float scale = 1.0f / (float)trainer_step_tokens(t);
    enter(t, PHASE_FORWARD, step);
    mem->sums[partition_n_blocks(&t->partition) + m] =
        transformer_loss(&mem->ws, t->model, t->batch->targets, scale, &t->grads);
}

static void backward(Trainer *t, int step)
{
    enter(t, PHASE_BACKWARD, step);
    transformer_backward(&t->memory.ws, t->model, t->batch->inputs, &t->grads);
}

// This rank's share of the step's gradient in a bucket.
static float *own_sum(const Trainer *t, const Bucket *bucket)
{
    const TrainerMemory *mem = &t->memory;
    return mem->own_sums != NULL ? mem->own_sums + bucket->moments_first
                                 : mem->flat_grads + bucket->own_first;
}

// Asks for the round's sums of the buckets from this layer on that were not asked for yet, from the
// last one down: the order in which backward makes them final.
static void reduce_from(void *context, int layer)
{
    Trainer *t = context;
    while (t->n_kept > 0 && t->partition.buckets[t->n_kept - 1].layer >= layer) {
        const Bucket *bucket = &t->partition.buckets[--t->n_kept];
        const CommReduce reduce = {.sum = own_sum(t, bucket),
                                   .bucket = t->memory.flat_grads + bucket->first,
                                   .count = bucket->count,
                                   .n_senders = batch_schedule_senders(&t->schedule, t->round),
                                   .fresh = t->round == 0,
                                   .as_bf16 = t->config->train.reduce_dtype == REDUCE_BFLOAT16};
        const int64_t ticket = exchange_reduce(t->exchange, &reduce);
        if (bucket->first + bucket->count > t->memory.ws.reuse.taken_from)
            t->reuse_ticket = ticket; // and all before
    }
}

// Waits until the gradients are sent whose memory this layer, or its output, the next one's input,
// reuses.
static void await_gradient_reuse(Trainer *t, int layer)
{
    const GradientReuse *reuse = &t->memory.ws.reuse;
    if (!gradient_reuse_is_used(reuse) || layer + 1 < reuse->lowest_layer ||
        exchange_is_done(t->exchange, t->reuse_ticket))
        return;
    enter(t, PHASE_REDUCE, t->progress.step + 1);
    exchange_wait(t->exchange, t->reuse_ticket);
    enter(t, PHASE_FORWARD, t->progress.step + 1);
}

// Waits until forward may go on to a layer: its updated parameters are here, and so is its room.
static void await_layer(void *context, int layer)
{
    Trainer *t = context;
    await_gradient_reuse(t, layer);
    int n = 0;
    while (n < t->partition.n_buckets && t->partition.buckets[n].layer <= layer)
        n++;
    if (replica_are_here(t->replica, t->exchange, n))
        return;
    enter(t, PHASE_GATHER, t->progress.step + 1);
    replica_await(t->replica, t->exchange, n);
    enter(t, PHASE_FORWARD, t->progress.step + 1);
}

// The forward of the group's first micro-batch, which needs no gradients.
static Status begin_group(Trainer *t, int step)
{
    int first, count;
    batch_schedule_group(&t->schedule, t->round, t->comm->rank, &first, &count);
    if (count == 0)
        return OK;
    TRY(batch(t, step, first));
    forward(t, step);
    return OK;
}

// The rest of it and of the group: the gradients of its micro-batches add up.
static Status end_group(Trainer *t, int step)
{
    Workspace *ws = &t->memory.ws;
    int first, count;
    batch_schedule_group(&t->schedule, t->round, t->comm->rank, &first, &count);
    for (int m = first; m < first + count; m++) {
        if (m > first) {
            TRY(batch(t, step, m));
            forward(t, step);
        }
        ws->fresh_gradients = m == first; // the sum begins
        loss(t, step, m);
        if (m == first + count - 1 && exchange_overlaps(t->exchange))
            ws->after_backward = (LayerCallback){reduce_from, t};
        backward(t, step);
        ws->after_backward = (LayerCallback){0};
    }
    return OK;
}

// The sums of a round are there, on all ranks or none.
static Status settle_round(Trainer *t, int step, Status own)
{
    enter(t, PHASE_REDUCE, step);
    exchange_wait_all(t->exchange);
    TRY(comm_agree(t->comm, own));
    enter(t, PHASE_SAVE, step);
    return saver_poll(&t->saver);
}

// Adds up the gradients of a step. A rank in trouble computes no more, but takes part until all
// know.
static Status accumulate(Trainer *t, int step)
{
    Status own = OK;
    for (t->round = 0; t->round < t->schedule.n_rounds; t->round++) {
        if (own == OK)
            own = begin_group(t, step);
        if (t->round > 0)
            TRY(settle_round(t, step, own)); // of the round before
        t->n_kept = t->partition.n_buckets;
        if (own == OK)
            own = end_group(t, step);
        enter(t, PHASE_REDUCE, step);
        reduce_from(t, -1);
    }
    return settle_round(t, step, own);
}

static double sum_up(const double *values, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += values[i];
    return sum;
}

// After the last round: the step's mean loss and global norm, the longest wait for data, the mean
// time of the phases, and whether a rank wants to end the run, on all ranks alike.
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
    double *waits = squares + n_squares + t->schedule.n_micro_batches;
    double *phases = waits + t->comm->size;
    waits[t->comm->rank] = report->data_wait_s;
    phases_take(&t->phases, phases);
    double *enders = phases + N_PHASES;
    *enders = t->metrics_status != OK || stop_requested();
    comm_sum_doubles(t->comm, t->memory.sums, memory_n_sums(&t->partition, &t->schedule));
    for (int rank = 0; rank < t->comm->size; rank++)
        report->data_wait_s = fmax(report->data_wait_s, waits[rank]);
    for (int i = 0; i < N_PHASES; i++)
        report->phase_s[i] = phases[i] / t->comm->size;
    t->wants_end = *enders > 0;
    report->grad_norm = sqrt(sum_up(squares, n_squares));
    report->loss =
        sum_up(squares + n_squares, t->schedule.n_micro_batches) / (double)trainer_step_tokens(t);
}

// Runs this rank's micro-batches of a step alone: their losses, norms and the rank go to their
// places in traced [3, micro-batches].
static Status trace_own(Trainer *t, int step, double *traced)
{
    const int n = t->schedule.n_micro_batches;
    double *squares = t->memory.sums;
    TRY(feed(t, step));
    t->memory.ws.fresh_gradients = true;
    for (int round = 0; round < t->schedule.n_rounds; round++) {
        int first, count;
        batch_schedule_group(&t->schedule, round, t->comm->rank, &first, &count);
        for (int m = first; m < first + count; m++) {
            TRY(batch(t, step, m));
            forward(t, step);
            loss(t, step, m);
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
    const int n = t->schedule.n_micro_batches;
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
    const int n = t->schedule.n_micro_batches;
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

// Updates this rank's shares and asks for those of the others, in the order in which the next
// forward reads them.
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
        if (exchange_overlaps(t->exchange))
            replica_send(t->replica, t->exchange, &t->partition, i);
    }
    if (exchange_overlaps(t->exchange))
        return;
    enter(t, PHASE_GATHER, report->step);
    replica_gather(t->replica, &t->partition);
    enter(t, PHASE_UPDATE, report->step);
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

static bool phases_are_due(const Trainer *t)
{
    const int every = t->config->log.phases;
    return every > 0 && t->progress.step % every == 0;
}

// After a step the ranks agree whether to go on, unless parameters are still on their way, no rank
// wants to end and nothing that they have to do together comes next.
static Status agree_to_go_on(Trainer *t)
{
    const int step = t->progress.step;
    if (exchange_overlaps(t->exchange) && !t->wants_end && !validation_is_due(t) &&
        !checkpoint_is_due(t) && !phases_are_due(t) && step < t->config->train.steps)
        return OK;
    enter(t, PHASE_GATHER, step);
    exchange_wait_all(t->exchange);
    replica_await(t->replica, t->exchange, t->partition.n_buckets);
    enter(t, PHASE_UPDATE, step);
    return comm_agree(t->comm, t->metrics_status != OK
                                   ? fail(t->metrics_status, "%s", t->metrics_text)
                                   : stop_check());
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
    memset(mem->sums, 0, (size_t)memory_n_sums(&t->partition, &t->schedule) * sizeof(double));
    TRY(accumulate(t, step));
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
    const Status status = metrics_step(t->context.metrics, &report);
    if (status != OK && t->metrics_status == OK) {
        t->metrics_status = status;
        snprintf(t->metrics_text, sizeof t->metrics_text, "%s", fail_text());
    }
    return agree_to_go_on(t);
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

// What follows a step: measuring, saving and telling where the time went, where they are due.
static Status settle(Trainer *t)
{
    if (validation_is_due(t))
        TRY(validate(t));
    if (checkpoint_is_due(t))
        TRY(save(t));
    if (phases_are_due(t))
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
    if (exchange_overlaps(t->exchange))
        t->memory.ws.before_layer = (LayerCallback){await_layer, t};
    const Status status = run_steps(t);
    phases_leave(&t->phases);
    if (status == OK || status == STOPPED)
        phases_report_all(&t->phases, t->comm, t->progress.step);
    return status;
}
