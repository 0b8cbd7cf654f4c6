// The runs of a sweep: one for every combination of the values of its axes, and the baseline.
//
//     const SweepRequest request = {.config = "configs/demo.yaml", .d_kvs = "16,8",
//                                   .vary = (const char *const[]){"model.convert.svd=joint,split"},
//                                   .n_vary = 1, .baseline = true};
//     TRY(sweep_open(&sweep, &request));             // five runs, without names yet
//     TRY(sweep_load_first(&config, &sweep));
//     TRY(sweep_name(&sweep, &config, NULL));        // demo-baseline, demo-dkv16-svd-joint, ...
//     TRY(sweep_check(&sweep, n_ranks));             // all of them, before the first one starts
//     sweep_close(&sweep);
//
// A run is the sweep's config with a few overrides. It has a directory and a checkpoint history of
// its own, so a sweep has no state and is resumed by starting it again. The last axis varies
// fastest. Not collective.
#ifndef MHA2MLA_TRAIN_SWEEP_SWEEP_H
#define MHA2MLA_TRAIN_SWEEP_SWEEP_H

#include "base/file.h"
#include "train/config/config.h"
#include "train/sweep/sweep_axis.h"

enum { MAX_SWEEP_AXES = 17, MAX_SWEEP_RUNS = 256, SWEEP_NAME_BYTES = 240 };

typedef struct SweepRequest {
    const char *config;     // path of the YAML file
    char *const *overrides; // [n_overrides], of all runs
    int n_overrides;
    const char *d_kvs;       // values of model.convert.d_kv, "16,8"; NULL: none are given
    const char *const *vary; // [n_vary], as for sweep_axis_parse()
    int n_vary;
    bool baseline; // add the run without conversion
} SweepRequest;

typedef struct SweepRun {
    int task; // 0: the baseline; from 1 on: its place among the combinations
    char name[SWEEP_NAME_BYTES];
    char dir[PATH_BYTES];
    char config[PATH_BYTES]; // resolved, in the sweep's directory
} SweepRun;

typedef struct Sweep {
    SweepRequest request; // borrowed from the caller
    SweepAxis axes[MAX_SWEEP_AXES];
    int n_axes;
    char out[PATH_BYTES]; // the sweep's directory
    SweepRun *runs;       // owned [n_runs], in the order of their tasks
    int n_runs;
} Sweep;

// BAD_INPUT: nothing is varied, a key twice, too many combinations, or an axis is wrong.
Status sweep_open(Sweep *out, const SweepRequest *request);

// Loads the config of the first combination under the name that it has without a sweep.
Status sweep_load_first(Config *out, const Sweep *sweep);

// Names the runs after the name of that config and places them in its run.dir. `out` is the sweep's
// directory; NULL: sweep-NAME in run.dir.
Status sweep_name(Sweep *sweep, const Config *config, const char *out);

// Loads a run's config and makes its plan for so many ranks.
Status sweep_load(Config *out, const Sweep *sweep, const SweepRun *run, int n_ranks);

// Loads all runs, so that a mistake in the last one, such as a d_kv that is too large, is reported
// before the first one starts; and two runs with the same settings.
Status sweep_check(const Sweep *sweep, int n_ranks);

// The run of a task, or NULL.
const SweepRun *sweep_find(const Sweep *sweep, int task);

void sweep_close(Sweep *sweep); // a zeroed one is allowed

#endif
