// The gradient of a step is the sum over groups of micro-batches, computed in rounds: in each round
// every rank computes one group, and the ranks exchange its gradients (train/reducer.h). Forward
// writes no gradients, so the first forward of a round runs while the sums of the round before are
// still on their way; backward waits for them. No rank reads parameters between the sums of a step,
// which need the gradients of all ranks, and its own update, so ranks may share one copy of the
// parameters (train/replica.h).
#include "train/step.h"

#include "base/log.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "train/guard.h"
#include "train/guard_trace.h"
#include "train/stop.h"

#include <math.h>
#include <stdio.h>

// Takes micro-batch i of this rank's group. trainer->batch is NULL where there is none: a rank may
// have no group left in the last round, or may have failed to read, and then computes nothing but
// takes part in the exchange until all ranks know of it.
static void batch(Trainer *t, int step, MicroBatches group, int i)
{
    phases_enter(&t->phases, PHASE_DATA);
    t->batch = NULL;
    if (i < group.count && t->read_status == OK)
        t->read_status = feed_next(&t->feed, &t->batch, step, group.first + i);
}

// Writes activations only; gradients of the round before may still be in transit. A teacher's pass
// comes first: it needs no parameters that are still on their way.
static void forward(Trainer *t)
{
    phases_enter(&t->phases, PHASE_FORWARD);
    if (t->batch == NULL)
        return;
    if (t->context.teacher != NULL) {
        teacher_forward(&t->memory.teaching, t->batch->inputs);
        t->memory.ws.follows = teacher_match(&t->memory.teaching, t->config->train.global_batch);
    }
    transformer_forward(&t->memory.ws, t->model, t->batch->inputs, NULL);
}

// The losses of micro-batch m and the gradients of the weighted ones, which are divided by the
// tokens or sequences of the global batch, so that those of micro-batches add up to the mean's.
static void compute_losses(Trainer *t, int m)
{
    Workspace *ws = &t->memory.ws;
    StepSums *sums = &t->memory.sums;
    const float scale = 1.0f / (float)trainer_step_tokens(t);
    if (t->context.teacher == NULL) {
        sums->losses[m] = transformer_loss(ws, t->model, t->batch->targets,
                                           scale * (float)t->config->train.loss.ce, &t->grads);
        return;
    }
    const TeacherLosses losses =
        teacher_losses(&t->memory.teaching, ws, t->model, t->batch->targets, scale, &t->grads);
    sums->losses[m] = losses.ce;
    sums->kls[m] = losses.kl;
    sums->matches[m] = losses.attention_mse;
}

static void loss_and_backward(Trainer *t, int m, bool fresh_gradients, LayerCallback after_backward)
{
    Workspace *ws = &t->memory.ws;
    phases_enter(&t->phases, PHASE_FORWARD);
    ws->fresh_gradients = fresh_gradients;
    compute_losses(t, m);
    phases_enter(&t->phases, PHASE_BACKWARD);
    ws->after_backward = after_backward;
    transformer_backward(ws, t->model, t->batch->inputs, &t->grads);
    ws->after_backward = (LayerCallback){0};
    ws->follows = NULL; // validation compares with no teacher
}

// The first micro-batch of a group begins its sum, the last one makes it final.
static void backward(Trainer *t, MicroBatches group, int i)
{
    const bool is_last = i == group.count - 1;
    if (t->batch != NULL)
        loss_and_backward(t, group.first + i, i == 0,
                          is_last ? reducer_callback(&t->reducer) : (LayerCallback){0});
}

static Status finish_round(Trainer *t)
{
    TRY(reducer_finish_round(&t->reducer, t->read_status));
    phases_enter(&t->phases, PHASE_SAVE);
    return saver_poll(&t->saver);
}

// Backward may write gradients from here on.
static Status begin_round(Trainer *t, int round)
{
    if (round > 0)
        TRY(finish_round(t));
    reducer_begin_round(&t->reducer, round);
    return OK;
}

// Waits for the last round. Then the loss, the global norm, the longest wait for data, the mean
// time of the phases and whether any rank wants to end the run are the same on all ranks.
static Status reduce(Trainer *t, StepReport *report)
{
    StepSums *sums = &t->memory.sums;
    TRY(finish_round(t));
    phases_enter(&t->phases, PHASE_REDUCE);
    reducer_sum_squares(&t->reducer, sums->squares);
    sums->data_waits_s[t->comm->rank] = feed_take_wait_s(&t->feed);
    phases_take(&t->phases, sums->phases_s);
    *sums->n_leaving = t->metrics_status != OK || stop_requested();
    step_sums_reduce(sums, t->comm);
    for (int rank = 0; rank < t->comm->size; rank++)
        report->data_wait_s = fmax(report->data_wait_s, sums->data_waits_s[rank]);
    for (int i = 0; i < N_PHASES; i++)
        report->phase_s[i] = sums->phases_s[i] / t->comm->size;
    t->is_ending = *sums->n_leaving > 0;
    report->grad_norm = step_sums_norm(sums);
    const StepLosses losses = step_sums_losses(sums, &t->config->train.loss, trainer_step_tokens(t),
                                               t->config->train.global_batch);
    report->loss = losses.total;
    report->ce = losses.ce;
    report->kl = losses.kl;
    report->attention_mse = losses.attention_mse;
    return OK;
}

// Sums of squares of what this rank's gradients alone have in the buckets.
static void sum_own_squares(Trainer *t)
{
    int64_t first_block = 0;
    for (int i = 0; i < t->partition.n_buckets; i++) {
        const Bucket *bucket = &t->partition.buckets[i];
        clip_sum_squares(t->memory.sums.squares + first_block,
                         t->memory.flat_grads + bucket->grads_first, bucket->count);
        first_block += clip_n_blocks(bucket->count);
    }
}

// Runs micro-batch m alone, for guard_trace_run(). The sums of the step are not needed any more.
static Status run_alone(void *context, int step, int m, double *loss, double *grad_norm)
{
    Trainer *t = context;
    StepSums *sums = &t->memory.sums;
    batch(t, step, (MicroBatches){m, 1}, 0);
    TRY(t->read_status);
    step_sums_clear(sums);
    forward(t);
    loss_and_backward(t, m, true, (LayerCallback){0});
    sum_own_squares(t);
    const int B = t->memory.batch.B, T = t->memory.batch.T;
    *loss = step_sums_losses(sums, &t->config->train.loss, (int64_t)B * T, B).total;
    *grad_norm = step_sums_norm(sums);
    return OK;
}

// The gradients of the step are lost, the parameters are those before it.
static Status trace_nonfinite(Trainer *t, const StepReport *report)
{
    const GuardTraceRun run = {.comm = t->comm,
                               .schedule = &t->schedule,
                               .mixture = t->mixture,
                               .run_dir = t->context.run_dir,
                               .step = report->step,
                               .loss = report->loss,
                               .grad_norm = report->grad_norm,
                               .first_sample = feed_first_sample(&t->feed, report->step, 0),
                               .n_samples = t->config->train.micro_batch,
                               .micro_batch = run_alone,
                               .context = t};
    TRY(comm_agree(t->comm, feed_start(&t->feed, report->step)));
    return guard_trace_run(&run);
}

// All ranks see the same norm, so all decide the same.
static Status guard(Trainer *t, StepReport *report)
{
    const TrainConfig *train = &t->config->train;
    if (!isfinite(report->grad_norm) || !isfinite(report->loss))
        return trace_nonfinite(t, report);
    return guard_check_spike(&report->is_skipped, &t->progress.spikes, report->step,
                             report->grad_norm, train->skip_spikes, train->spike_window);
}

// Updates this rank's shares. They are sent bucket by bucket, in the order in which the next
// forward reads them.
static Status update(Trainer *t, const StepReport *report)
{
    if (report->is_skipped)
        return OK;
    phases_enter(&t->phases, PHASE_SAVE);
    TRY(saver_finish(&t->saver)); // a save that is under way reads what changes here
    phases_enter(&t->phases, PHASE_UPDATE);
    const OptimConfig *optim = &t->config->optim;
    const double scale = clip_scale(report->grad_norm, optim->clip);
    const int n_updates = report->step - (int)t->progress.spikes.n_skipped;
    for (int i = 0; i < t->partition.n_buckets; i++) {
        const Bucket *bucket = &t->partition.buckets[i];
        adamw_update(t->model->params.flat + bucket->own_first, t->memory.m + bucket->moments_first,
                     t->memory.v + bucket->moments_first, reducer_own_sum(&t->reducer, bucket),
                     bucket->own_count, &optim->adamw, report->lr, scale, n_updates);
        reducer_send_parameters(&t->reducer, i);
    }
    return OK;
}

// Rank 0 alone writes metrics. What fails there ends the run once the ranks next agree: parameters
// are on their way, and the text has to outlive what fails until then.
static void report_step(Trainer *t, StepReport *report, double start_s)
{
    RunState *progress = &t->progress;
    phases_enter(&t->phases, PHASE_UPDATE);
    progress->step = report->step;
    progress->loss = report->loss;
    progress->grad_norm = report->grad_norm;
    report->valid_loss = progress->valid_loss;
    report->valid_step = progress->valid_step;
    report->n_skipped = progress->spikes.n_skipped;
    report->step_s = log_seconds() - start_s;
    const Status status = metrics_step(t->context.metrics, report);
    if (status != OK && t->metrics_status == OK) {
        t->metrics_status = status;
        snprintf(t->metrics_text, sizeof t->metrics_text, "%s", fail_text());
    }
}

// Collective. The order of the phases is that of the header; an error before update() leaves
// weights and moments as they were.
Status step_run(Trainer *t, int step)
{
    const double start_s = log_seconds();
    StepReport report = {.step = step,
                         .tokens = step * trainer_step_tokens(t),
                         .has_teacher = t->context.teacher != NULL,
                         .lr = schedule_lr(&t->config->optim.schedule, step)};
    phases_begin_step(&t->phases, step);
    step_sums_clear(&t->memory.sums);
    for (int round = 0; round < t->schedule.n_rounds; round++) {
        const MicroBatches group = batch_schedule_group(&t->schedule, round, t->comm->rank);
        batch(t, step, group, 0);
        forward(t); // meanwhile the gradients of the round before are exchanged
        TRY(begin_round(t, round));
        backward(t, group, 0);
        for (int i = 1; i < group.count; i++) {
            batch(t, step, group, i);
            forward(t);
            backward(t, group, i);
        }
        reducer_end_round(&t->reducer);
    }
    TRY(reduce(t, &report));
    TRY(guard(t, &report));
    TRY(update(t, &report));
    report_step(t, &report, start_s);
    return OK;
}
