// The run directory, run.dir/run.name: held by one job at a time, and what is in it decides where
// the job starts.
//
//     RunDir dir = {0};
//     status = run_dir_open(&dir, &config, RESUME_AUTO, &plan.shape, &comm);
//     if (status == OK && dir.is_resumed)
//         ...                       // train on after dir.checkpoint.manifest.state.step
//     run_dir_close(&dir);          // also after an error
#ifndef MHA2MLA_TRAIN_JOB_RUN_DIR_H
#define MHA2MLA_TRAIN_JOB_RUN_DIR_H

#include "train/checkpoint/resume.h"
#include "train/checkpoint/run_lock.h"

typedef struct RunDir {
    char path[PATH_BYTES];
    FileLock lock; // rank 0's
    bool is_resumed;
    Checkpoint checkpoint; // the one to resume from, if is_resumed
} RunDir;

// Makes and locks the directory on rank 0 and chooses the checkpoint to resume from. BAD_INPUT if
// another job holds the directory, if it is not the same for all ranks, if there is no start that
// `mode` allows, or if the checkpoint does not fit the config or the model's shape. Collective.
Status run_dir_open(RunDir *out, const Config *config, ResumeMode mode, const ModelShape *shape,
                    const Comm *comm);

void run_dir_close(RunDir *dir);

#endif
