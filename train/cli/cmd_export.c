// mha2mla export: a Hugging Face directory of a checkpoint, at any time in a run.
#include "base/file_lock.h"
#include "model/hf/hf.h"
#include "train/checkpoint/resume.h"
#include "train/cli/command/command.h"
#include "train/config/config_table.h"
#include "train/inspect/inspect.h"

#include <stdio.h>

typedef struct ExportOptions {
    const char *out;  // HF directory to write
    const char *base; // NULL: the one the manifest names
    DType dtype;
} ExportOptions;

// `path` is a checkpoint, or a run, whose newest whole checkpoint is taken.
static Status open_checkpoint(Checkpoint *out, const char *path, const Comm *comm)
{
    char checkpoints[PATH_BYTES];
    bool is_found;
    TRY(file_join(checkpoints, path, "checkpoints"));
    if (!file_is_dir(checkpoints)) {
        if (!inspect_is_checkpoint(path))
            return fail(BAD_INPUT, "%s: neither a checkpoint nor a run with checkpoints", path);
        return resume_open(out, path, comm);
    }
    TRY(resume_find(out, &is_found, path, comm));
    return is_found ? OK : fail(BAD_INPUT, "%s: has no whole checkpoint", path);
}

// config.json's other keys and the tokenizer are not in a checkpoint: they are copied from the base
// model, or the tokenizer alone from the config's for a model that started from random weights.
static Status export_checkpoint(const ExportOptions *options, const char *path, const Comm *comm)
{
    Checkpoint checkpoint = {0};
    Model model = {0};
    FileLock target = {0};
    TRY(open_checkpoint(&checkpoint, path, comm));
    const Manifest *manifest = &checkpoint.manifest;
    const char *base = options->base != NULL ? options->base : manifest->base;
    const char *tokenizer = manifest->tokenizer;
    Status status;
    if (base != NULL && !file_is_dir(base)) {
        status = fail(BAD_INPUT,
                      "%s: is not there, the model that %s was trained from; name it with --base",
                      base, checkpoint.dir);
        goto close;
    }
    TRY_GOTO(close, hf_check_target(base, options->out));
    TRY_GOTO(close, file_lock_directory(&target, options->out));
    TRY_GOTO(unlock, checkpoint_load_model(&model, &checkpoint));
    if (base == NULL && tokenizer != NULL && file_is_dir(tokenizer))
        TRY_GOTO(release, hf_copy_tokenizer(tokenizer, options->out));
    TRY_GOTO(release, hf_save(&model, base, options->dtype, options->out));
    printf("%s: step %d of %s, %.2f M parameters\n", options->out, manifest->state.step,
           manifest->name, (double)params_count(&model.shape) / 1e6);
release:
    model_release(&model);
unlock:
    file_lock_remove(&target);
close:
    checkpoint_close(&checkpoint);
    return status;
}

static const ExportOptions defaults = {.dtype = DTYPE_F32};

static const Option options[] = {
    {"out", OPTION_TEXT, offsetof(ExportOptions, out), "DIR", "directory to write",
     .files = ANY_DIRECTORY, .required = true},
    {"base", OPTION_TEXT, offsetof(ExportOptions, base), "MODEL",
     "model that the run started from: config.json and tokenizer are taken from it",
     .derived = "the one in the run's config", .files = ANY_DIRECTORY},
    {"dtype", OPTION_CHOICE, offsetof(ExportOptions, dtype), "TYPE", "number format of the weights",
     .choices = config_dtype_names},
};

// Export is on ranks, so that resume_open() can be used as it is, but made by one process: the work
// is reading and writing one set of files.
static Status run(const CommandLine *line)
{
    if (line->comm->size > 1)
        return fail(BAD_INPUT, "export runs on one process; start it without mpirun");
    return export_checkpoint(line->options, line->words[0], line->comm);
}

const Command cmd_export = {
    .name = "export",
    .summary = "write a checkpoint as a Hugging Face model",
    .description = "CHECKPOINT is a checkpoint's directory, or that of a run, whose newest "
                   "checkpoint is taken. The run may still be training.",
    COMMAND_OPTIONS(ExportOptions, options, defaults),
    .words = {"CHECKPOINT", 1, 1, ANY_DIRECTORY},
    .is_on_ranks = true,
    .examples =
        (const char *const[]){
            "mha2mla export runs/demo-dkv8/checkpoints/step-00000060 --out runs/demo/step-60",
            "mha2mla export runs/demo-dkv8 --out runs/demo/newest --dtype bfloat16", NULL},
    .run = run,
};
