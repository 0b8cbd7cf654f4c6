// Between the reading thread and the loop. The position of a run in its data is one integer, the
// index of a sample: step s begins at (s - 1) global_batch, micro-batch m of it micro_batch m
// later. Nothing about it is saved, so a resume on another number of ranks reads the same samples.
#include "train/feed.h"

#include "base/log.h"

#include <stdlib.h>

// Prefetch knows nothing of rounds and ranks: it gets the list of this rank's micro-batches, in the
// order in which step_run() takes them, and repeats it for every step.
Status feed_start(Feed *feed, int first_step)
{
    const BatchSchedule *schedule = feed->schedule;
    const TrainConfig *train = &feed->config->train;
    int *own = calloc((size_t)schedule->n_micro_batches, sizeof *own), n_own = 0;
    if (own == NULL)
        return fail(FAILED, "no memory for %d micro-batches", schedule->n_micro_batches);
    for (int round = 0; round < schedule->n_rounds; round++) {
        const MicroBatches group = batch_schedule_group(schedule, round, feed->rank);
        for (int i = 0; i < group.count; i++)
            own[n_own++] = group.first + i;
    }
    const PrefetchOrder order = {first_step, train->steps, train->global_batch, own, n_own};
    feed_stop(feed); // its thread reads the same mixture and memory
    const Status status = prefetch_start(&feed->prefetch, feed->mixture, feed->memory, &order);
    free(own);
    return status;
}

void feed_stop(Feed *feed)
{
    prefetch_stop(feed->prefetch);
    feed->prefetch = NULL;
    feed->taken_s = 0;
}

int64_t feed_first_sample(const Feed *feed, int step, int m)
{
    const TrainConfig *train = &feed->config->train;
    return (int64_t)(step - 1) * train->global_batch + (int64_t)m * train->micro_batch;
}

// The caller and the reading thread count micro-batches independently; training on other samples
// than those of this place would go unnoticed, so it is checked.
Status feed_next(Feed *feed, const Batch **batch, int step, int m)
{
    int64_t first;
    TRY(prefetch_next(feed->prefetch, batch, &first));
    CHECK(first == feed_first_sample(feed, step, m), "step %d, micro-batch %d: sample %lld", step,
          m, (long long)first);
    return OK;
}

// Since the last call: the prefetch counts from its start.
double feed_take_wait_s(Feed *feed)
{
    const double waited_s = prefetch_wait_s(feed->prefetch), taken_s = feed->taken_s;
    feed->taken_s = waited_s;
    return waited_s - taken_s;
}

// Samples of the whole run, also of the steps before a resume.
static int64_t run_samples(const Config *config)
{
    return (int64_t)config->train.steps * config->train.global_batch;
}

// Before the first step, while it can still be changed.
void feed_warn_epochs(const Mixture *mixture, const Config *config)
{
    for (int i = 0; i < mixture_n_sources(mixture); i++) {
        const SourceEpochs use = mixture_epochs(mixture, i, run_samples(config));
        if (use.epochs > 1)
            log_warn("source %s: this run reads its %lld samples %.3g times; more text, a smaller "
                     "weight or fewer steps avoid that",
                     use.name, (long long)use.n_held, use.epochs);
    }
}

void feed_report_epochs(const Mixture *mixture, const Config *config)
{
    if (config->train.steps == 0)
        return;
    for (int i = 0; i < mixture_n_sources(mixture); i++) {
        const SourceEpochs use = mixture_epochs(mixture, i, run_samples(config));
        log_info("source %s: %lld samples read, %.3g epochs", use.name, (long long)use.n_read,
                 use.epochs);
    }
}
