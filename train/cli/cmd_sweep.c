// mha2mla sweep: one config with several values of some keys, one run after another, then compared.
// Each run is what `train` would make of the same config with a few overrides (train/sweep/).
#include "base/log.h"
#include "train/agreement.h"
#include "train/cli/cmd_compare.h"
#include "train/cli/compute_options.h"
#include "train/job/job.h"
#include "train/parallel/watch.h"
#include "train/sweep/sweep_jobs.h"

#include <stdlib.h>

typedef struct SweepOptions {
    const char *d_kvs, *out; // out: NULL for sweep-NAME in run.dir
    OptionTexts vary;
    int64_t task; // or ALL_TASKS
    bool baseline, list, slurm, submit, emulate;
} SweepOptions;

enum { ALL_TASKS = -1 };

// ---- here, one after another -------------------------------------------------------------------

// Rank 0 alone; the report is made from the runs' files.
static Status compare(Sweep *sweep)
{
    char *dirs[MAX_SWEEP_RUNS];
    for (int i = 0; i < sweep->n_runs; i++)
        dirs[i] = sweep->runs[i].dir;
    return cmd_compare_report(dirs, sweep->n_runs, sweep->out);
}

static Status run_one(const Comm *comm, const SweepRun *run, bool emulate)
{
    const JobOptions job = {.config = run->config, .resume = RESUME_AUTO, .emulate = emulate};
    const Status status = job_run(comm, &job);
    if (status == STOPPED)
        log_info("the sweep stops in run %s; the same command resumes it", run->name);
    if (status != OK && status != STOPPED)
        return fail_within(status, "sweep: run %s", run->name);
    return status;
}

// A finished run is left as it is by job_run(), which makes the sweep resumable as a whole.
static Status run_all(const Comm *comm, Sweep *sweep, bool emulate)
{
    for (int i = 0; i < sweep->n_runs; i++) {
        log_info("sweep: run %d of %d, %s", i + 1, sweep->n_runs, sweep->runs[i].name);
        TRY(run_one(comm, &sweep->runs[i], emulate));
    }
    return comm_agree(comm, comm->rank == 0 ? compare(sweep) : OK);
}

// A task of a job array.
static Status run_task(const Comm *comm, const Sweep *sweep, int task, bool emulate)
{
    const SweepRun *run = sweep_find(sweep, task);
    log_info("sweep: task %d of %d to %d, run %s", task, sweep->runs[0].task,
             sweep->runs[sweep->n_runs - 1].task, run->name);
    return run_one(comm, run, emulate);
}

// ---- before the first run ----------------------------------------------------------------------

// Writes the resolved configs of the runs from `first` on, which the jobs and the user read.
static Status write_configs(const Sweep *sweep, const SweepRun *first, int n_runs, int n_ranks)
{
    TRY(file_make_dirs(sweep->out));
    for (int i = 0; i < n_runs; i++) {
        Config config;
        TRY(sweep_load(&config, sweep, &first[i], n_ranks));
        const Status status = config_write(&config, first[i].config);
        config_release(&config);
        TRY(status);
    }
    return OK;
}

// The other tasks are checked where they run, so that a mistake in one of them stops no other.
static Status prepare_task(const Sweep *sweep, int task, const Comm *comm)
{
    Config config;
    const SweepRun *run = sweep_find(sweep, task);
    if (run == NULL)
        return fail(BAD_INPUT, "sweep: --task is %d, allowed are %d to %d%s", task,
                    sweep->runs[0].task, sweep->runs[sweep->n_runs - 1].task,
                    task == 0 ? "; 0 needs --baseline" : "");
    TRY(sweep_load(&config, sweep, run, comm->size));
    config_release(&config);
    return comm->rank == 0 ? write_configs(sweep, run, 1, comm->size) : OK;
}

static Status list_or_submit(const Sweep *sweep, const SweepOptions *options)
{
    SweepJobs jobs;
    for (int i = 0; i < sweep->n_runs && options->list; i++)
        puts(sweep->runs[i].dir);
    if (options->list)
        return OK;
    TRY(sweep_jobs_find(&jobs));
    jobs.emulate = options->emulate;
    sweep_jobs_write(stdout, &jobs, sweep);
    return options->submit ? sweep_jobs_submit(&jobs, sweep) : OK;
}

// Not collective: what each rank does here it does for itself, only rank 0 writes.
static Status prepare(Sweep *sweep, const Comm *comm, const Config *config,
                      const SweepOptions *options)
{
    TRY(sweep_name(sweep, config, options->out));
    if (options->task != ALL_TASKS)
        return prepare_task(sweep, (int)options->task, comm);
    TRY(sweep_check(sweep, comm->size));
    if (comm->rank != 0)
        return OK;
    if (options->list || options->slurm)
        return list_or_submit(sweep, options);
    return write_configs(sweep, sweep->runs, sweep->n_runs, comm->size);
}

// Collective. One config is read by all ranks for names; each run's own is read again by job_run().
static Status start(Sweep *sweep, const Comm *comm, const SweepOptions *options)
{
    Config config = {0};
    Status status = sweep_load_first(&config, sweep);
    TRY_GOTO(release_config, agreement_config(comm, &config, status));
    TRY_GOTO(release_config,
             watch_ranks(comm, NULL, config.run.stall_minutes, "run.stall_minutes"));
    status = comm_agree(comm, prepare(sweep, comm, &config, options));
release_config: // also on a rank that has read it where another could not
    config_release(&config);
    if (status != OK || options->list || options->slurm)
        return status;
    return options->task != ALL_TASKS ? run_task(comm, sweep, (int)options->task, options->emulate)
                                      : run_all(comm, sweep, options->emulate);
}

// ---- the command -------------------------------------------------------------------------------

static const SweepOptions defaults = {.task = ALL_TASKS};

static const Option options[] = {
    {"d-kv", OPTION_TEXT, offsetof(SweepOptions, d_kvs), "N,N,...",
     "values of model.convert.d_kv, one run for each"},
    {"vary", OPTION_TEXTS, offsetof(SweepOptions, vary), "KEY=V,V,...",
     "values of any config key; a run for each combination with --d-kv and other --vary"},
    {"baseline", OPTION_FLAG, offsetof(SweepOptions, baseline), NULL,
     "add a run without conversion"},
    {"out", OPTION_TEXT, offsetof(SweepOptions, out), "DIR",
     "directory for the runs' configs and the report", .derived = "sweep-NAME in run.dir",
     .files = ANY_DIRECTORY},
    {"list", OPTION_FLAG, offsetof(SweepOptions, list), NULL,
     "print the runs' directories, in the order of their tasks, and run nothing"},
    {"slurm", OPTION_FLAG, offsetof(SweepOptions, slurm), NULL,
     "print the commands that submit the runs as jobs, and run nothing"},
    {"submit", OPTION_FLAG, offsetof(SweepOptions, submit), NULL,
     "with --slurm: run these commands too"},
    EMULATE_OPTION(SweepOptions, emulate),
    {"task", OPTION_INT, offsetof(SweepOptions, task), "N",
     "run the N-th alone, 0 for the baseline, and compare nothing: for job arrays", 0,
     MAX_SWEEP_RUNS, .derived = "all of them"},
};

// Combinations that would silently ignore an option are refused.
static Status check_options(const SweepOptions *given)
{
    if (given->submit && !given->slurm)
        return fail(BAD_INPUT, "sweep: --submit needs --slurm");
    if ((given->task != ALL_TASKS) + given->list + given->slurm > 1)
        return fail(BAD_INPUT, "sweep: only one of --list, --slurm and --task can be given");
    return OK;
}

static Status run(const CommandLine *line)
{
    const SweepOptions *given = line->options;
    const SweepRequest request = {.config = line->words[0],
                                  .overrides = line->overrides,
                                  .n_overrides = line->n_overrides,
                                  .d_kvs = given->d_kvs,
                                  .vary = given->vary.items,
                                  .n_vary = given->vary.n,
                                  .baseline = given->baseline};
    TRY(check_options(given));
    Sweep *sweep = calloc(1, sizeof *sweep);
    Status status = sweep != NULL ? OK : fail(FAILED, "sweep: out of memory");
    TRY_GOTO(release, comm_agree(line->comm, status));
    TRY_GOTO(release, comm_agree(line->comm, sweep_open(sweep, &request)));
    status = start(sweep, line->comm, given);
release: // also on a rank that has opened it where another could not
    if (sweep != NULL)
        sweep_close(sweep);
    free(sweep);
    return status;
}

const Command cmd_sweep = {
    .name = "sweep",
    .summary = "train with several values of some keys, here or as jobs, and compare",
    .description = "Trains CONFIG once for each latent width of --d-kv, or for each combination of "
                   "the values of several keys, in runs named after them (NAME-dkv8-rope-high), "
                   "then compares them. Given again, the same command resumes the sweep.",
    COMMAND_OPTIONS(SweepOptions, options, defaults),
    .words = {"CONFIG", 1, 1, "*.yaml"},
    .is_on_ranks = true,
    .takes_overrides = true,
    .handles_stop = true,
    .examples =
        (const char *const[]){
            "mpirun -n 2 mha2mla sweep configs/demo.yaml --d-kv 16,8,4 --baseline",
            "mpirun -n 2 mha2mla sweep configs/demo.yaml --vary "
            "model.convert.rope=high,low,uniform,2-norm --vary model.convert.svd=joint,split "
            "--list",
            NULL},
    .run = run,
};
