// mha2mla train: one job, from the config to the exported model.
#include "train/cli/command.h"
#include "train/cli/options.h"
#include "train/job/job.h"
#include "train/parallel/comm.h"
#include "train/stop.h"

enum { MOST_OVERRIDES = 128 };

static Status parse_and_run(const Comm *comm, int argc, char **argv)
{
    char *overrides[MOST_OVERRIDES];
    const int n_overrides = config_take_overrides(overrides, MOST_OVERRIDES, &argc, argv);
    JobOptions job = {.overrides = overrides, .n_overrides = n_overrides};
    bool help_config = false;
    const char *resume = "auto";
    const Option options[] = {
        {"resume", OPTION_STRING, &resume, "MODE",
         "auto (default): from the newest checkpoint of the run, if there is one; require: from it "
         "or not at all; never: from the beginning",
         0, 0, false},
        {"dry-run", OPTION_FLAG, &job.dry_run, NULL, "print model, work and memory; run nothing", 0,
         0, false},
        {"help-config", OPTION_FLAG, &help_config, NULL,
         "show every key of CONFIG: meaning, bounds, unit, default", 0, 0, false},
    };
    Arguments rest;
    TRY(options_parse(&rest, &cmd_train, options, sizeof options / sizeof options[0], argc, argv));
    if (rest.help_shown)
        return OK;
    if (help_config) {
        if (comm->rank == 0)
            config_print_reference(stdout);
        return OK;
    }
    if (rest.n_words != 1)
        return fail(BAD_INPUT, "train needs one CONFIG, got %d; see mha2mla train --help",
                    rest.n_words);
    TRY(resume_parse(&job.resume, resume));
    job.config = rest.words[0];
    return job_run(comm, &job);
}

// The handlers are there from before MPI starts until the process is gone: a signal in between is
// never the end of one rank alone.
static Status run_train(int argc, char **argv)
{
    stop_install();
    return comm_run(parse_and_run, argc, argv);
}

const Command cmd_train = {
    .name = "train",
    .summary = "convert a model and heal it, or train it as it is",
    .usage = "CONFIG [--section.key=value ...] [--resume auto|require|never] [--dry-run] "
             "[--help-config]",
    .example = "mpirun -n 2 mha2mla train configs/demo.yaml --model.convert.d_kv=12 "
               "--run.name=demo-dkv12",
    .run = run_train,
};
