// One training job, from its config to the exported model: reads the config, plans the memory,
// takes the run directory, prepares the model or reads it from the newest checkpoint, trains and
// exports it. `mha2mla train` is one job, `mha2mla sweep` one after another.
//
//     const JobOptions options = {.config = "configs/demo.yaml", .resume = RESUME_AUTO};
//     stop_install();                       // train/stop.h, before MPI starts
//     TRY(job_run(comm, &options));
//
// What a job writes: RUN/config.yaml and RUN/run.json (train/job/run_json.h), metrics.jsonl,
// checkpoints/ and model/.
#ifndef MHA2MLA_TRAIN_JOB_JOB_H
#define MHA2MLA_TRAIN_JOB_JOB_H

#include "train/checkpoint/resume.h"
#include "train/parallel/comm.h"

typedef struct JobOptions {
    const char *config;     // path of the YAML file
    char *const *overrides; // [n_overrides], as for config_load(); borrowed
    int n_overrides;
    ResumeMode resume;
    bool dry_run; // print the plan on stdout, train nothing
    bool emulate; // products in bfloat16 are emulated (train/plan/compute_check.h)
} JobOptions;

// Runs a job to its end. A finished one is left as it is. STOPPED if a signal or run.max_minutes
// ended it, after its state was saved. Collective.
Status job_run(const Comm *comm, const JobOptions *options);

#endif
