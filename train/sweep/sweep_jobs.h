// A sweep as jobs of Slurm: an array of slurm/sweep.sbatch with a task for each run, and
// slurm/compare.sbatch when all of them are done.
//
//     TRY(sweep_jobs_find(&jobs));
//     sweep_jobs_write(stdout, &jobs, &sweep);      // the commands, for a shell
//     TRY(sweep_jobs_submit(&jobs, &sweep));        // runs the same commands
#ifndef MHA2MLA_TRAIN_SWEEP_SWEEP_JOBS_H
#define MHA2MLA_TRAIN_SWEEP_SWEEP_JOBS_H

#include "train/sweep/sweep.h"

#include <stdio.h>

typedef struct SweepJobs {
    char program[PATH_BYTES]; // this one, which the jobs start too
    char scripts[PATH_BYTES]; // the folder with sweep.sbatch and compare.sbatch
    bool emulate;             // the jobs get --emulate; sweep_jobs_find() sets false
} SweepJobs;

// BAD_INPUT if there are no job scripts.
Status sweep_jobs_find(SweepJobs *out);

// Needs the runs' names. The caller checks the stream for errors.
void sweep_jobs_write(FILE *out, const SweepJobs *jobs, const Sweep *sweep);

// FAILED if a command fails.
Status sweep_jobs_submit(const SweepJobs *jobs, const Sweep *sweep);

#endif
