// What goes from the mixture to the training loop: a rank's micro-batches, read ahead, and the
// user's word on how often each source is read.
//
//     TRY(feed_start(&prefetch, mixture, &memory, &config, &schedule, comm.rank, step + 1));
//     feed_warn_epochs(mixture, &config);       // before the first step
//     ... prefetch_next(prefetch, ...)          // data/prefetch.h
//     feed_report_epochs(mixture, &config);     // after the last
#ifndef MHA2MLA_TRAIN_FEED_H
#define MHA2MLA_TRAIN_FEED_H

#include "data/prefetch.h"
#include "train/config/config.h"
#include "train/parallel/batch_schedule.h"

// Starts to read the micro-batches of `rank` from a step to the run's last, round by round as the
// turns give them. Errors are those of prefetch_start(); the caller stops it.
Status feed_start(Prefetch **out, Mixture *mixture, const PrefetchMemory *memory,
                  const Config *config, const BatchSchedule *schedule, int rank, int first_step);

// One warning for each source that the run reads more than once.
void feed_warn_epochs(const Mixture *mixture, const Config *config);

// One line for each source: samples and epochs of the whole run.
void feed_report_epochs(const Mixture *mixture, const Config *config);

#endif
