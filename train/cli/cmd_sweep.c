// mha2mla sweep: the same model at several cache sizes, one run after another, then compared.
// A run for each latent width, as `train` would make it: the same config with two overrides. Every
// run has a directory and a checkpoint history of its own, so a sweep has no state and is resumed
// by starting it again.
#include "base/file.h"
#include "base/log.h"
#include "train/agreement.h"
#include "train/cli/cmd_compare.h"
#include "train/cli/command/command.h"
#include "train/job/job.h"
#include "train/parallel/watch.h"
#include "train/plan/plan.h"

#include <ctype.h>
#include <errno.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RUNS = 64, BASELINE = 0 };

typedef struct SweepRun {
    int d_kv; // or BASELINE
    char name[256];
    char dir[PATH_BYTES];
    char config[PATH_BYTES]; // resolved, in the sweep's directory
} SweepRun;

typedef struct Sweep {
    const Comm *comm;
    const char *path; // the config's
    char **overrides; // borrowed [n_overrides + 2]: the last two are set for each run
    int n_overrides;
    bool has_baseline;
    char base_name[128], run_dir[PATH_BYTES], out[PATH_BYTES];
    SweepRun runs[MAX_RUNS];
    int n_runs;
} Sweep;

// ---- which runs --------------------------------------------------------------------------------

// "16,8,4"
static Status parse_d_kvs(Sweep *sweep, const char *list)
{
    const char *at = list;
    for (;;) {
        const size_t length = strcspn(at, ",");
        char *end;
        const long d_kv = strtol(at, &end, 10);
        if (!isdigit((unsigned char)*at) || end != at + length || d_kv < 1 || d_kv > 131072)
            return fail(BAD_INPUT, "--d-kv is '%.100s'; give whole numbers, such as 16,8,4", list);
        for (int i = 0; i < sweep->n_runs; i++)
            if (sweep->runs[i].d_kv == d_kv)
                return fail(BAD_INPUT, "--d-kv has %ld twice", d_kv);
        if (sweep->n_runs == MAX_RUNS)
            return fail(BAD_INPUT, "--d-kv has more than %d values", MAX_RUNS - 1);
        sweep->runs[sweep->n_runs++].d_kv = (int)d_kv;
        if (at[length] == '\0')
            return OK;
        at += length + 1;
    }
}

// The config of a single run, "demo-dkv8", may start a sweep: its runs are named after "demo".
static void cut_d_kv(char *name)
{
    char *dash = strrchr(name, '-');
    if (dash == NULL || dash == name)
        return;
    const char *digits = dash + 4;
    const bool is_d_kv = strncmp(dash, "-dkv", 4) == 0 && *digits != '\0' &&
                         digits[strspn(digits, "0123456789")] == '\0';
    if (is_d_kv || strcmp(dash, "-baseline") == 0)
        *dash = '\0';
}

// A name that does not fit is an error and never cut: it becomes part of a path.
static Status copy_text(char *out, size_t out_bytes, const char *text, const char *what)
{
    const int n = snprintf(out, out_bytes, "%s", text);
    if (n < 0 || (size_t)n >= out_bytes)
        return fail(BAD_INPUT, "sweep: %s '%.100s...' is longer than %zu bytes", what, text,
                    out_bytes - 1);
    return OK;
}

// The sweep's names and directories, from its config.
static Status set_names(Sweep *sweep, const Config *config, const char *out)
{
    char name[256];
    if (!config->model.convert.given)
        return fail(BAD_INPUT,
                    "%s: has no model.convert to sweep over; --baseline adds the run without it",
                    sweep->path);
    TRY(copy_text(sweep->base_name, sizeof sweep->base_name, config->run.name, "run.name"));
    TRY(copy_text(sweep->run_dir, sizeof sweep->run_dir, config->run.dir, "run.dir"));
    cut_d_kv(sweep->base_name);
    if (out != NULL)
        return copy_text(sweep->out, sizeof sweep->out, out, "--out");
    snprintf(name, sizeof name, "sweep-%s", sweep->base_name);
    return file_join(sweep->out, config->run.dir, name);
}

// NAME-dkvN, NAME-baseline: what the Slurm scripts call them too.
static Status name_run(const Sweep *sweep, SweepRun *run)
{
    char file[300];
    if (run->d_kv == BASELINE)
        snprintf(run->name, sizeof run->name, "%s-baseline", sweep->base_name);
    else
        snprintf(run->name, sizeof run->name, "%s-dkv%d", sweep->base_name, run->d_kv);
    snprintf(file, sizeof file, "%s.yaml", run->name);
    TRY(file_join(run->dir, sweep->run_dir, run->name));
    return file_join(run->config, sweep->out, file);
}

// Loads a run's config and makes its plan, so that a mistake in the last run, such as a d_kv that
// is too large, is reported before the first one starts.
static Status load_run(Config *config, Sweep *sweep, SweepRun *run)
{
    char variant[64], name[300];
    if (run->d_kv == BASELINE)
        snprintf(variant, sizeof variant, "--model.convert=none");
    else
        snprintf(variant, sizeof variant, "--model.convert.d_kv=%d", run->d_kv);
    TRY(name_run(sweep, run));
    snprintf(name, sizeof name, "--run.name=%s", run->name);
    sweep->overrides[sweep->n_overrides] = variant;
    sweep->overrides[sweep->n_overrides + 1] = name;
    TRY(config_load(config, sweep->path, sweep->overrides, sweep->n_overrides + 2));
    Plan plan;
    const Status status = plan_make(&plan, config, sweep->comm->size, omp_get_max_threads());
    if (status != OK)
        config_release(config);
    return status;
}

// Checks all runs and writes their resolved configs, which the jobs and the user read.
static Status prepare(Sweep *sweep, bool writes)
{
    const bool is_writer = writes && sweep->comm->rank == 0;
    if (is_writer)
        TRY(file_make_dirs(sweep->out));
    for (int i = 0; i < sweep->n_runs; i++) {
        Config config;
        TRY(load_run(&config, sweep, &sweep->runs[i]));
        const Status status = is_writer ? config_write(&config, sweep->runs[i].config) : OK;
        config_release(&config);
        TRY(status);
    }
    return OK;
}

// ---- here, one after another -------------------------------------------------------------------

// Rank 0 alone; the report is made from the runs' files.
static Status compare(Sweep *sweep)
{
    char *dirs[MAX_RUNS];
    for (int i = 0; i < sweep->n_runs; i++)
        dirs[i] = sweep->runs[i].dir;
    return cmd_compare_report(dirs, sweep->n_runs, sweep->out);
}

// A finished run is left as it is by job_run(), which makes the sweep resumable as a whole.
static Status run_here(Sweep *sweep)
{
    for (int i = 0; i < sweep->n_runs; i++) {
        const SweepRun *run = &sweep->runs[i];
        log_info("sweep: run %d of %d, %s", i + 1, sweep->n_runs, run->name);
        const JobOptions job = {.config = run->config, .resume = RESUME_AUTO};
        const Status status = job_run(sweep->comm, &job);
        if (status == STOPPED)
            log_info("the sweep stops in run %s; the same command resumes it", run->name);
        if (status != OK)
            return status == STOPPED ? status : fail_within(status, "sweep: run %s", run->name);
    }
    return comm_agree(sweep->comm, sweep->comm->rank == 0 ? compare(sweep) : OK);
}

// ---- as jobs of Slurm --------------------------------------------------------------------------

typedef struct JobFiles {
    char program[PATH_BYTES]; // this one, which the jobs start too
    char scripts[PATH_BYTES]; // the folder with sweep.sbatch and compare.sbatch
} JobFiles;

// The job scripts below the working directory, or else those that belong to the program: where
// `cmake --install` puts them, or in the source tree above build/PRESET.
static Status find_job_files(JobFiles *out)
{
    static const char *const beside[] = {"../share/mha2mla/slurm", "../../slurm"};
    if (realpath("/proc/self/exe", out->program) == NULL)
        return fail(FAILED, "sweep: /proc/self/exe: %s", strerror(errno));
    if (file_exists("slurm/sweep.sbatch"))
        return copy_text(out->scripts, sizeof out->scripts, "slurm", "the folder");
    const int dir_bytes = (int)(strrchr(out->program, '/') - out->program);
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        char script[PATH_BYTES + 64];
        snprintf(script, sizeof script, "%.*s/%s/sweep.sbatch", dir_bytes, out->program, beside[i]);
        if (realpath(script, out->scripts) != NULL) {
            *strrchr(out->scripts, '/') = '\0';
            return OK;
        }
    }
    return fail(BAD_INPUT,
                "sweep: no slurm/sweep.sbatch, seen from the working directory, and none that "
                "belongs to %s; copy the project's folder slurm here",
                out->program);
}

// Writes a word in the quotes that a shell needs to read it back.
static void write_word(FILE *out, const char *word)
{
    fputc(' ', out);
    if (word[0] != '\0' && word[strcspn(word, " \t\n'\"\\$`!*?[](){}<>|&;~#")] == '\0') {
        fputs(word, out);
        return;
    }
    fputc('\'', out);
    for (; *word != '\0'; word++) {
        if (*word == '\'')
            fputs("'\\''", out);
        else
            fputc(*word, out);
    }
    fputc('\'', out);
}

// The path of a job script, quoted.
static void write_script(FILE *out, const JobFiles *files, const char *name)
{
    char path[PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", files->scripts, name);
    write_word(out, path);
}

// Task 0 of the array is the baseline, as sweep.sbatch's header explains. MHA2MLA names the program
// to the job scripts, unless the user has set it.
static void write_jobs(FILE *out, const JobFiles *files, const Sweep *sweep)
{
    if (getenv("MHA2MLA") == NULL) {
        char variable[PATH_BYTES + 64];
        snprintf(variable, sizeof variable, "MHA2MLA=%s", files->program);
        fputs("export", out);
        write_word(out, variable);
        fputc('\n', out);
    }
    const int n_d_kvs = sweep->n_runs - sweep->has_baseline;
    fprintf(out, "sweep=$(sbatch --parsable --array=%d-%d", sweep->has_baseline ? 0 : 1, n_d_kvs);
    write_script(out, files, "sweep.sbatch");
    write_word(out, sweep->path);
    for (int i = 0; i < sweep->n_runs; i++)
        if (sweep->runs[i].d_kv != BASELINE)
            fprintf(out, " %d", sweep->runs[i].d_kv);
    for (int i = 0; i < sweep->n_overrides; i++)
        write_word(out, sweep->overrides[i]);
    fputs(")\nsbatch --dependency=afterok:${sweep%%;*} --kill-on-invalid-dep=yes", out);
    write_script(out, files, "compare.sbatch");
    for (int i = 0; i < sweep->n_runs; i++)
        write_word(out, sweep->runs[i].dir);
    fputs(" --out", out);
    write_word(out, sweep->out);
    fputc('\n', out);
}

// The shell runs the very lines that were printed; -e stops it at the first sbatch that fails.
static Status submit(const JobFiles *files, const Sweep *sweep)
{
    fflush(stdout);
    FILE *shell = popen("/bin/sh -eu", "w");
    if (shell == NULL)
        return fail(FAILED, "sweep: no shell to submit with");
    write_jobs(shell, files, sweep);
    if (pclose(shell) != 0)
        return fail(FAILED, "sweep: the commands above failed; submit on a machine with Slurm");
    return OK;
}

// The job script trains CONFIG with d_kv and name of its own for each task, and names runs after
// the config file; so must the comparison.
static Status run_as_jobs(Sweep *sweep, bool submits)
{
    const char *slash = strrchr(sweep->path, '/');
    const char *file = slash != NULL ? slash + 1 : sweep->path;
    for (int i = 0; i < sweep->n_overrides; i++)
        if (strncmp(sweep->overrides[i], "--run.name", 10) == 0)
            return fail(BAD_INPUT, "%.100s: with --slurm, runs are named after the config file",
                        sweep->overrides[i]);
    TRY(copy_text(sweep->base_name, sizeof sweep->base_name, file, "the config's name"));
    char *dot = strrchr(sweep->base_name, '.');
    if (dot != NULL && dot != sweep->base_name)
        *dot = '\0';
    TRY(prepare(sweep, false));
    if (sweep->comm->rank != 0)
        return OK;
    JobFiles files;
    TRY(find_job_files(&files));
    write_jobs(stdout, &files, sweep);
    return submits ? submit(&files, sweep) : OK;
}

// ---- the command -------------------------------------------------------------------------------

typedef struct SweepOptions {
    const char *d_kvs, *out; // out: NULL for sweep-NAME in run.dir
    bool baseline, slurm, submit;
} SweepOptions;

// Not collective: what each rank does here it does for itself, only rank 0 writes.
static Status prepare_or_submit(Sweep *sweep, const Config *config, const SweepOptions *options)
{
    TRY(set_names(sweep, config, options->out));
    return options->slurm ? run_as_jobs(sweep, options->submit) : prepare(sweep, true);
}

// Collective. The base config is read once by all ranks for names; each run's own is read again by
// job_run().
static Status start(Sweep *sweep, const SweepOptions *options)
{
    const Comm *comm = sweep->comm;
    Config config = {0};
    Status status = config_load(&config, sweep->path, sweep->overrides, sweep->n_overrides);
    TRY_GOTO(release_config, agreement_config(comm, &config, status));
    TRY_GOTO(release_config,
             watch_ranks(comm, NULL, config.run.stall_minutes, "run.stall_minutes"));
    status = comm_agree(comm, prepare_or_submit(sweep, &config, options));
release_config: // also on a rank that has read it where another could not
    config_release(&config);
    return status != OK || options->slurm ? status : run_here(sweep);
}

static const SweepOptions defaults = {0};

static const Option options[] = {
    {"d-kv", OPTION_TEXT, offsetof(SweepOptions, d_kvs), "N,N,...",
     "values of model.convert.d_kv, one run for each", .required = true},
    {"baseline", OPTION_FLAG, offsetof(SweepOptions, baseline), NULL,
     "add a run without conversion"},
    {"out", OPTION_TEXT, offsetof(SweepOptions, out), "DIR",
     "directory for the runs' configs and the report", .derived = "sweep-NAME in run.dir",
     .files = ANY_DIRECTORY},
    {"slurm", OPTION_FLAG, offsetof(SweepOptions, slurm), NULL,
     "print the commands that submit the runs as jobs, and run nothing"},
    {"submit", OPTION_FLAG, offsetof(SweepOptions, submit), NULL,
     "with --slurm: run these commands too"},
};

static Status run(const CommandLine *line)
{
    const SweepOptions *given = line->options;
    if (given->submit && !given->slurm)
        return fail(BAD_INPUT, "sweep: --submit needs --slurm");
    Sweep *sweep = calloc(1, sizeof *sweep);
    char **overrides = calloc((size_t)line->n_overrides + 2, sizeof *overrides);
    Status status = sweep != NULL && overrides != NULL ? OK : fail(FAILED, "sweep: out of memory");
    TRY_GOTO(release, comm_agree(line->comm, status));
    sweep->comm = line->comm;
    sweep->path = line->words[0];
    sweep->overrides = overrides;
    sweep->n_overrides = line->n_overrides;
    sweep->has_baseline = given->baseline;
    if (sweep->has_baseline)
        sweep->runs[sweep->n_runs++].d_kv = BASELINE;
    for (int i = 0; i < line->n_overrides; i++)
        overrides[i] = line->overrides[i];
    TRY_GOTO(release, parse_d_kvs(sweep, given->d_kvs));
    status = start(sweep, given);
release:
    free(overrides);
    free(sweep);
    return status;
}

const Command cmd_sweep = {
    .name = "sweep",
    .summary = "train at several cache sizes, one after another or as jobs, and compare",
    .description = "Trains CONFIG once for each latent width, in runs named NAME-dkvN, then "
                   "compares them. Given again, the same command resumes the sweep.",
    COMMAND_OPTIONS(SweepOptions, options, defaults),
    .words = {"CONFIG", 1, 1, "*.yaml"},
    .is_on_ranks = true,
    .takes_overrides = true,
    .handles_stop = true,
    .examples = (const char *const[]){"mpirun -n 2 mha2mla sweep configs/demo.yaml --d-kv 16,8,4 "
                                      "--baseline",
                                      NULL},
    .run = run,
};
