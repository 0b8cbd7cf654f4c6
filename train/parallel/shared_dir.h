// Whether a directory is one and the same for all ranks: on a file system that their machines
// share, by whatever path each has to it.
//
//     TRY(shared_dir_check(&comm, run_dir));
#ifndef MHA2MLA_TRAIN_PARALLEL_SHARED_DIR_H
#define MHA2MLA_TRAIN_PARALLEL_SHARED_DIR_H

#include "train/parallel/comm.h"

// Rank 0 makes a file in its `dir` for a moment, which each rank looks for in its own. BAD_INPUT
// with the first rank that does not see it, on all ranks; FAILED if rank 0 cannot write there.
// Collective.
Status shared_dir_check(const Comm *comm, const char *dir);

// Removes the files of such checks that were killed in that moment. Only for a directory that no
// other job is checking, as a run's is once it is locked. Not collective.
void shared_dir_clear(const char *dir);

#endif
