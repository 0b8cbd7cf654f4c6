#include "train/feed.h"

#include "base/log.h"

#include <stdlib.h>

Status feed_start(Prefetch **out, Mixture *mixture, const PrefetchMemory *memory,
                  const Config *config, const BatchSchedule *schedule, int rank, int first_step)
{
    int *own = calloc((size_t)schedule->n_micro_batches, sizeof *own), n_own = 0;
    if (own == NULL)
        return fail(FAILED, "no memory for %d micro-batches", schedule->n_micro_batches);
    for (int round = 0; round < schedule->n_rounds; round++) {
        int first, count;
        batch_schedule_group(schedule, round, rank, &first, &count);
        for (int m = first; m < first + count; m++)
            own[n_own++] = m;
    }
    const PrefetchOrder order = {first_step, config->train.steps, config->train.global_batch, own,
                                 n_own};
    const Status status = prefetch_start(out, mixture, memory, &order);
    free(own);
    return status;
}

static int64_t run_samples(const Config *config)
{
    return (int64_t)config->train.steps * config->train.global_batch;
}

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
    for (int i = 0; i < mixture_n_sources(mixture) && config->train.steps > 0; i++) {
        const SourceEpochs use = mixture_epochs(mixture, i, run_samples(config));
        log_info("source %s: %lld samples read, %.3g epochs", use.name, (long long)use.n_read,
                 use.epochs);
    }
}
