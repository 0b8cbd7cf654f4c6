// With train.overlap updated parameters are still on their way when a step ends, so the ranks
// cannot agree on anything then. They do so only where they have to meet anyway: before a
// validation, an evaluation, a save, a report, at the end, and after a step in whose sums some rank
// said that it wants to end the run. A request to stop thus takes effect one step later at most.
#include "train/loop.h"

#include "base/log.h"
#include "train/step.h"
#include "train/stop.h"

#include <stdio.h>

// Before the first step, at the interval, and after the last step, once for each step. valid_step <
// 0: nothing was measured on this set yet.
static bool validation_is_due(const Trainer *t)
{
    const int step = t->progress.step, every = t->config->data.validation.every;
    return t->validation.source != NULL && t->progress.valid_step != step &&
           (t->progress.valid_step < 0 || step == t->config->train.steps ||
            (every > 0 && step % every == 0));
}

// At the interval and after the last step, once for each step.
static bool evaluation_is_due(const Trainer *t)
{
    const TrainerEvaluation *evaluation = t->context.evaluation;
    const int step = t->progress.step;
    if (evaluation == NULL || evaluation->last_step == step)
        return false;
    return step == t->config->train.steps ||
           (step > 0 && evaluation->every > 0 && step % evaluation->every == 0);
}

// After step 0 only for a converted model: what a conversion took is worth saving, random or loaded
// weights are made again at once.
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

static Status validate(Trainer *t)
{
    const int step = t->progress.step;
    double loss;
    phases_enter(&t->phases, PHASE_VALIDATION);
    TRY(validation_loss(&loss, &t->validation, t->comm, &t->memory.ws, &t->memory.batch, t->model));
    t->progress.valid_loss = loss;
    t->progress.valid_step = step;
    snprintf(t->progress.valid_set, sizeof t->progress.valid_set, "%s", t->validation.set);
    return comm_agree(
        t->comm, metrics_validation(t->context.metrics, step, step * trainer_step_tokens(t), loss));
}

static Status evaluate(Trainer *t)
{
    TrainerEvaluation *evaluation = t->context.evaluation;
    const int step = t->progress.step;
    phases_enter(&t->phases, PHASE_GATHER);
    replica_make_exact(t->replica, &t->partition);
    phases_enter(&t->phases, PHASE_EVALUATION);
    TRY(evaluation->run(evaluation->context, replica_exact_model(t->replica), t->context.metrics,
                        step, step * trainer_step_tokens(t)));
    evaluation->last_step = step;
    return OK;
}

// The checkpoint counts on the lines of metrics.jsonl up to its step. The save before is finished
// first: its error text would hide that of the metrics.
static Status save(Trainer *t)
{
    phases_enter(&t->phases, PHASE_SAVE);
    TRY(saver_finish(&t->saver));
    Status ready = comm_agree(t->comm, metrics_sync(t->context.metrics));
    if (ready != OK && saver_make_room(&t->saver, t->progress.step))
        ready = comm_agree(t->comm, metrics_sync(t->context.metrics));
    return saver_begin(&t->saver, &t->progress, ready);
}

// For the save of a stopped run, which has nothing to compute meanwhile.
static Status save_and_wait(Trainer *t)
{
    TRY(save(t));
    return saver_finish(&t->saver);
}

// Validation, evaluation, saving and the table of phases, where they are due after progress.step.
static Status validate_save_report(Trainer *t)
{
    if (validation_is_due(t))
        TRY(validate(t));
    if (evaluation_is_due(t))
        TRY(evaluate(t));
    if (checkpoint_is_due(t))
        TRY(save(t));
    if (phases_are_due(t))
        phases_report(&t->phases, t->comm, t->progress.step);
    return OK;
}

// STOPPED, or the error of rank 0's metrics, on all ranks; OK without asking if nothing calls for
// it.
static Status agree_to_continue(Trainer *t)
{
    if (reducer_overlaps(&t->reducer) && !t->is_ending && !validation_is_due(t) &&
        !evaluation_is_due(t) && !checkpoint_is_due(t) && !phases_are_due(t) &&
        t->progress.step < t->config->train.steps)
        return OK;
    reducer_wait_all(&t->reducer);
    return comm_agree(t->comm, t->metrics_status != OK
                                   ? fail(t->metrics_status, "%s", t->metrics_text)
                                   : stop_check());
}

// All ranks run the same steps and enter every collective together: what is due depends on the step
// alone, and whether to continue is agreed on.
static Status run_steps(Trainer *t)
{
    Status status = feed_start(&t->feed, t->progress.step + 1);
    feed_warn_epochs(t->mixture, t->config);
    TRY(comm_agree(t->comm, status == OK ? stop_check() : status));
    TRY(validate_save_report(t));
    while (t->progress.step < t->config->train.steps) {
        TRY(step_run(t, t->progress.step + 1));
        TRY(agree_to_continue(t));
        TRY(validate_save_report(t));
    }
    return OK;
}

// Saves the state of a stopped run, unless it is on the disk already. checkpoint.on_error does not
// count: the run would lose what it has done.
static Status save_stopped(Trainer *t)
{
    char cause[64];
    snprintf(cause, sizeof cause, "%s", fail_text());
    phases_enter(&t->phases, PHASE_SAVE);
    TRY(saver_finish(&t->saver));
    if (t->saver.saved_step != t->progress.step) {
        t->saver.is_needed = true;
        const Status status = save_and_wait(t);
        if (status != OK)
            return fail_within(status, "stopped by %s", cause);
    }
    return fail(STOPPED, "%s", cause);
}

// A save that is under way when the run fails is of a good state: it is finished, and the error
// that ended the run is returned whatever becomes of the save.
static Status finish_save(Trainer *t, Status status)
{
    char text[2048];
    phases_enter(&t->phases, PHASE_SAVE);
    if (status == OK)
        return saver_finish(&t->saver);
    snprintf(text, sizeof text, "%s", fail_text());
    saver_finish(&t->saver);
    return fail(status, "%s", text);
}

// A run that is done leaves an exact model. Not after an error: this and the table's collectives
// need all ranks at the same place.
Status loop_run(Trainer *t)
{
    phases_start(&t->phases, t->progress.step);
    Status status = run_steps(t);
    status = status == STOPPED ? save_stopped(t) : finish_save(t, status);
    if (status == OK) {
        phases_enter(&t->phases, PHASE_GATHER);
        replica_make_exact(t->replica, &t->partition);
        feed_report_epochs(t->mixture, t->config);
    }
    phases_leave(&t->phases);
    if (status == OK || status == STOPPED)
        phases_report_all(&t->phases, t->comm, t->progress.step);
    return status;
}
