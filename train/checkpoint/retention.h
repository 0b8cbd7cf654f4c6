// Which checkpoints of a run stay: the newest checkpoint.keep, those of checkpoint.keep_every, and
// those that a resume went back behind although they may be whole.
//
//     retention_set_aside(run_dir, step, step);                     // before step is saved again
//     ... the save, up to its manifest ...
//     retention_set_aside(run_dir, step + 1, INT_MAX);
//     retention_prune(run_dir, &config.checkpoint, config.checkpoint.keep, step);
//
// A checkpoint that was skipped at the resume because a file of it was missing, or because it could
// not be read, may be there again later (a server that was away, files that are copied back). The
// run must not write over it, and its name must go, as the run's own later checkpoints are of
// another history. It becomes step-SSSSSSSS.skipped, which no resume takes, and stays until the run
// has saved its step, or a later one, itself. One that is certainly damaged is removed.
//
// Nothing here is collective; one rank calls it. What cannot be removed or renamed stays.
#ifndef MHA2MLA_TRAIN_CHECKPOINT_RETENTION_H
#define MHA2MLA_TRAIN_CHECKPOINT_RETENTION_H

#include "train/config/config.h"

// Removes what is not among the newest `n_newest` up to `last_step`, the newest that is known to be
// whole, nor kept for good; saves that were not finished; and what was set aside up to last_step.
// Returns how many checkpoints and unfinished saves were removed.
int retention_prune(const char *run_dir, const CheckpointConfig *config, int n_newest,
                    int last_step);

// Takes the checkpoints of the steps first .. last, which are of another life of the run, out of
// the way of this one.
void retention_set_aside(const char *run_dir, int first, int last);

#endif
