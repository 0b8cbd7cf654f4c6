// Feeds the training loop: the micro-batches of a rank, read ahead, and what the user should know
// of how often each source is read.
//
//     Feed feed = {.mixture = mixture, .memory = &memory.ahead, .config = &config,
//                  .schedule = &schedule, .rank = comm.rank};
//     TRY(feed_start(&feed, step + 1));
//     feed_warn_epochs(mixture, &config);            // before the first step
//     TRY(feed_next(&feed, &batch, step, m));        // the rank's micro-batches, in their order
//     feed_report_epochs(mixture, &config);          // after the last
//     feed_stop(&feed);
#ifndef MHA2MLA_TRAIN_FEED_H
#define MHA2MLA_TRAIN_FEED_H

#include "data/prefetch.h"
#include "train/config/config.h"
#include "train/parallel/batch_schedule.h"

typedef struct Feed {
    Mixture *mixture; // borrowed, as the next three
    const PrefetchMemory *memory;
    const Config *config;
    const BatchSchedule *schedule;
    int rank;
    Prefetch *prefetch; // owned; NULL: not started
    double taken_s;     // waits that feed_take_wait_s() has returned
} Feed;

// Starts to read this rank's micro-batches from a step to the run's last, round by round as the
// schedule deals them out. What was read ahead before is dropped. FAILED: no memory.
Status feed_start(Feed *feed, int first_step);

// The next micro-batch, which must be m of this step; valid until the next call. Errors are those
// of mixture_read().
Status feed_next(Feed *feed, const Batch **batch, int step, int m);

// The mixture's index of the first sample of micro-batch m of a step.
int64_t feed_first_sample(const Feed *feed, int step, int m);

// Seconds that feed_next() has waited for data since the last call.
double feed_take_wait_s(Feed *feed);

// Does nothing if it was not started.
void feed_stop(Feed *feed);

// One warning for each source that the run reads more than once.
void feed_warn_epochs(const Mixture *mixture, const Config *config);

// One line for each source: samples and epochs of the whole run.
void feed_report_epochs(const Mixture *mixture, const Config *config);

#endif
