// mha2mla export: a Hugging Face directory of a checkpoint, at any time in a run.
#include "model/hf/hf.h"
#include "train/checkpoint/resume.h"
#include "train/cli/command.h"
#include "train/cli/options.h"
#include "train/inspect/inspect.h"
#include "train/parallel/comm.h"

#include <stdio.h>

typedef struct Request {
    const char *path;  // a checkpoint, or a run: its newest
    const char *out;   // HF directory to write
    const char *base;  // NULL: the one the manifest names
    const char *dtype; // NULL: float32
} Request;

static Status open_checkpoint(Checkpoint *out, const char *path, const Comm *comm)
{
    char checkpoints[PATH_BYTES];
    bool is_found;
    TRY(file_join(checkpoints, path, "checkpoints"));
    if (!file_is_dir(checkpoints)) {
        Checkpoint checkpoint;
        if (!inspect_is_checkpoint(path))
            return fail(BAD_INPUT, "%s: neither a checkpoint nor a run with checkpoints", path);
        TRY(checkpoint_open(&checkpoint, path));
        Status status = checkpoint_verify(&checkpoint, 0, 1);
        if (status == OK)
            *out = checkpoint;
        else
            checkpoint_close(&checkpoint);
        return status;
    }
    TRY(resume_find(out, &is_found, path, comm));
    return is_found ? OK : fail(BAD_INPUT, "%s: has no whole checkpoint", path);
}

// Where config.json's other keys and the tokenizer come from. NULL: there is none.
static const char *text_of(const Checkpoint *checkpoint, const char *key)
{
    return json_string_value(json_object_get(checkpoint->manifest, key));
}

static Status export_checkpoint(const Request *request, DType dtype, const Comm *comm)
{
    Checkpoint checkpoint = {0};
    Model model = {0};
    TRY(open_checkpoint(&checkpoint, request->path, comm));
    const char *base = request->base != NULL ? request->base : text_of(&checkpoint, "base");
    const char *tokenizer = text_of(&checkpoint, "tokenizer");
    Status status;
    if (base != NULL && !file_is_dir(base)) {
        status = fail(BAD_INPUT,
                      "%s: is not there, the model that %s was trained from; name it with --base",
                      base, checkpoint.dir);
        goto close;
    }
    TRY_GOTO(close, hf_check_target(base, request->out));
    TRY_GOTO(close, checkpoint_load_model(&model, &checkpoint));
    if (base == NULL && tokenizer != NULL && file_is_dir(tokenizer))
        TRY_GOTO(release, hf_copy_tokenizer(tokenizer, request->out));
    TRY_GOTO(release, hf_save(&model, base, dtype, request->out));
    printf("%s: step %d of %s, %.2f M parameters\n", request->out, checkpoint.progress.step,
           text_of(&checkpoint, "name"), (double)params_count(&model.shape) / 1e6);
release:
    model_release(&model);
close:
    checkpoint_close(&checkpoint);
    return status;
}

static Status parse_and_export(const Comm *comm, int argc, char **argv)
{
    Request request = {.dtype = "float32"};
    const Option options[] = {
        {"out", OPTION_STRING, &request.out, "DIR", "directory to write", .required = true},
        {"base", OPTION_STRING, &request.base, "MODEL",
         "model it was trained from (default as in the run's config)"},
        {"dtype", OPTION_STRING, &request.dtype, "TYPE", "float32 (default), bfloat16 or float16"},
    };
    Arguments rest;
    DType dtype;
    TRY(options_parse(&rest, &cmd_export, options, sizeof options / sizeof options[0], argc, argv));
    if (rest.help_shown)
        return OK;
    if (rest.n_words != 1)
        return fail(BAD_INPUT, "export needs one CHECKPOINT, got %d; see mha2mla export --help",
                    rest.n_words);
    if (comm->size > 1)
        return fail(BAD_INPUT, "export is the work of one process; start it without mpirun");
    request.path = rest.words[0];
    if (dtype_parse_torch_name(&dtype, request.dtype) != OK)
        return fail_within(BAD_INPUT, "--dtype");
    return export_checkpoint(&request, dtype, comm);
}

static Status run_export(int argc, char **argv)
{
    return comm_run(parse_and_export, argc, argv);
}

const Command cmd_export = {
    .name = "export",
    .summary = "write a checkpoint as a Hugging Face model",
    .usage = "CHECKPOINT|RUN --out DIR [--base MODEL] [--dtype TYPE]",
    .example = "mha2mla export runs/demo/checkpoints/step-00000060 --out runs/demo/step-60",
    .run = run_export,
};
