// mha2mla train: one job, from the config to the exported model. All of its work is in train/job/.
#include "train/cli/compute_options.h"
#include "train/config/config.h"
#include "train/job/job.h"

typedef struct TrainOptions {
    ResumeMode resume;
    bool dry_run, emulate, help_config;
} TrainOptions;

// By the values of ResumeMode, as OPTION_CHOICE sets the index.
static const char *const resume_names[] = {
    [RESUME_AUTO] = "auto", [RESUME_REQUIRE] = "require", [RESUME_NEVER] = "never", NULL};

static const TrainOptions defaults = {.resume = RESUME_AUTO};

static const Option options[] = {
    {"resume", OPTION_CHOICE, offsetof(TrainOptions, resume), "MODE",
     "auto: from the run's newest checkpoint, or from the beginning if it has none; require: from "
     "a checkpoint or not at all; never: from the beginning, in a new directory",
     .choices = resume_names},
    {"dry-run", OPTION_FLAG, offsetof(TrainOptions, dry_run), NULL,
     "print model, work and memory; run nothing"},
    EMULATE_OPTION(TrainOptions, emulate),
    {"help-config", OPTION_FLAG, offsetof(TrainOptions, help_config), NULL,
     "show every key of CONFIG: meaning, bounds, unit, default", .is_query = true},
};

// --help-config needs neither CONFIG nor a job, so it is answered first, by one rank.
static Status run(const CommandLine *line)
{
    const TrainOptions *given = line->options;
    if (given->help_config) {
        if (line->comm->rank == 0)
            config_print_reference(stdout);
        return OK;
    }
    const JobOptions job = {.config = line->words[0],
                            .overrides = line->overrides,
                            .n_overrides = line->n_overrides,
                            .resume = given->resume,
                            .dry_run = given->dry_run,
                            .emulate = given->emulate};
    return job_run(line->comm, &job);
}

const Command cmd_train = {
    .name = "train",
    .summary = "convert a model and heal it, or train it as it is",
    .description = "Loads or makes the model, calibrates and converts it, trains, validates, saves "
                   "checkpoints and exports the result, as CONFIG says. Given again, the same "
                   "command resumes the run. SIGTERM, SIGINT, SIGUSR1 and run.max_minutes save a "
                   "checkpoint and end the run with status 75.",
    COMMAND_OPTIONS(TrainOptions, options, defaults),
    .words = {"CONFIG", 1, 1, "*.yaml"},
    .is_on_ranks = true,
    .takes_overrides = true,
    .handles_stop = true,
    .examples = (const char *const[]){"mpirun -n 2 mha2mla train configs/demo.yaml "
                                      "--model.convert.d_kv=12 --run.name=demo-dkv12",
                                      NULL},
    .run = run,
};
