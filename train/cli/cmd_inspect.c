// mha2mla inspect: finds out what kind of file or directory PATH is; train/inspect/ does the rest.
#include "base/file.h"
#include "base/paths.h"
#include "train/cli/command/command.h"
#include "train/inspect/inspect.h"

static const InspectTokens defaults = {0};

static const Option options[] = {
    {"tokenizer", OPTION_TEXT, offsetof(InspectTokens, tokenizer_dir), "DIR",
     "token files: show the first tokens as text of this tokenizer", .files = ANY_DIRECTORY},
    {"verify", OPTION_FLAG, offsetof(InspectTokens, verify), NULL,
     "token files and checkpoints: read and check everything"},
};

// By suffix for files, by content for HDF5 and directories. Shards first, as they are the most
// common.
static Status run(const CommandLine *line)
{
    const InspectTokens *tokens = line->options;
    const char *path = line->words[0];
    const bool is_dir = file_is_dir(path);
    if (!is_dir && !file_exists(path))
        return fail(BAD_INPUT, "%s: neither a file nor a directory", path);
    // Shards and scores both end in .h5; a damaged file of either kind is reported as a shard.
    const bool is_hdf5 = !is_dir && name_ends_with(path, ".h5"),
               is_scores = inspect_is_scores(path);
    if (is_hdf5 && !is_scores)
        return inspect_shard(path, tokens);
    if (!is_dir && name_ends_with(path, ".ds"))
        return inspect_nanoset(path, tokens);
    // A directory is a checkpoint, a run or a model by the file that only this kind has.
    if (is_dir && inspect_is_checkpoint(path) && tokens->tokenizer_dir == NULL)
        return inspect_checkpoint(path, tokens->verify);
    if (tokens->verify || tokens->tokenizer_dir != NULL)
        return fail(BAD_INPUT,
                    "%s: --verify is for token files (.h5, .ds) and checkpoints, --tokenizer for "
                    "token files",
                    path);
    if (is_scores)
        return inspect_scores(path);
    if (is_dir)
        return inspect_is_run(path)     ? inspect_run(path)
               : inspect_is_paper(path) ? inspect_paper(path)
                                        : inspect_model(path);
    if (name_ends_with(path, ".safetensors"))
        return inspect_safetensors(path);
    return fail(BAD_INPUT,
                "%s: not a directory of a model, run or checkpoint, nor a .safetensors file, a "
                "token shard or scores (.h5), a Nanoset (.ds)",
                path);
}

const Command cmd_inspect = {
    .name = "inspect",
    .summary = "show what a model, run, checkpoint, or file of weights, tokens or scores holds",
    .description = "PATH is a Hugging Face directory, a run or checkpoint directory, a "
                   ".safetensors file, a token shard or scores (.h5), or a Nanoset (.ds).",
    COMMAND_OPTIONS(InspectTokens, options, defaults),
    .words = {"PATH", 1, 1, ANY_FILE},
    .examples = (const char *const[]){"mha2mla inspect runs/demo-dkv8/model",
                                      "mha2mla inspect runs/demo/shards/valid.h5 --tokenizer "
                                      "configs/demo/model --verify",
                                      NULL},
    .run = run,
};
