// `mha2mla inspect PATH`: says what kind of file or directory PATH is, and leaves the rest to
// train/inspect_*.c.
#include "base/file.h"
#include "train/cli/options.h"
#include "train/inspect/inspect.h"

#include <string.h>

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static Status run(int argc, char **argv)
{
    InspectTokens tokens = {0};
    const Option options[] = {
        {"tokenizer", OPTION_STRING, &tokens.tokenizer_dir, "DIR",
         "of tokens: show the first ones as text of this tokenizer"},
        {"verify", OPTION_FLAG, &tokens.verify, NULL,
         "of tokens and checkpoints: read and check all"},
    };
    Arguments rest;
    TRY(options_parse(&rest, &cmd_inspect, options, sizeof options / sizeof options[0], argc,
                      argv));
    if (rest.help_shown)
        return OK;
    if (rest.n_words != 1)
        return fail(BAD_INPUT, "inspect needs one PATH, got %d; see mha2mla inspect --help",
                    rest.n_words);
    const char *path = rest.words[0];
    const bool is_dir = file_is_dir(path);
    if (!is_dir && !file_exists(path))
        return fail(BAD_INPUT, "%s: neither a file nor a directory", path);
    const bool is_hdf5 = !is_dir && ends_with(path, ".h5"), is_scores = inspect_is_scores(path);
    if (is_hdf5 && !is_scores)
        return inspect_shard(path, &tokens);
    if (!is_dir && ends_with(path, ".ds"))
        return inspect_nanoset(path, &tokens);
    if (is_dir && inspect_is_checkpoint(path) && tokens.tokenizer_dir == NULL)
        return inspect_checkpoint(path, tokens.verify);
    if (tokens.verify || tokens.tokenizer_dir != NULL)
        return fail(BAD_INPUT,
                    "%s: --verify is for files of tokens (.h5, .ds) and checkpoints, --tokenizer "
                    "for the former",
                    path);
    if (is_scores)
        return inspect_scores(path);
    if (is_dir)
        return inspect_is_run(path) ? inspect_run(path) : inspect_model(path);
    if (ends_with(path, ".safetensors"))
        return inspect_safetensors(path);
    return fail(BAD_INPUT,
                "%s: not a directory of a model, run or checkpoint, nor a .safetensors file, a "
                "token shard or "
                "scores (.h5), a Nanoset (.ds)",
                path);
}

const Command cmd_inspect = {
    .name = "inspect",
    .summary = "show what a model, run, checkpoint, or file of replica, tokens or scores holds",
    .usage = "PATH [--tokenizer DIR] [--verify]",
    .example = "mha2mla inspect runs/demo/shards/valid.h5 --tokenizer configs/demo/model --verify",
    .run = run,
};
