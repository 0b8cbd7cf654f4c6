// mha2mla import: a model of the paper's own code as a model of this program.
#include "base/file_lock.h"
#include "model/hf/hf.h"
#include "model/paper/paper_import.h"
#include "train/cli/command/command.h"
#include "train/cli/dtype_option.h"
#include "train/config/config_table.h"

#include <stdio.h>

typedef struct ImportOptions {
    const char *out; // directory to write
    PaperPairs pairs;
    int dtype; // a DType, or DTYPE_OF_MODEL
} ImportOptions;

static void print_result(const PaperConfig *paper, const char *out)
{
    const ModelShape *s = &paper->shape, original = shape_original(s);
    const int64_t numbers = shape_cache_numbers(s), before = shape_cache_numbers(&original);
    printf("%s: from MHA2MLA %s, %.2f M parameters, %d of %d RoPE pairs (%s), d_kv %d, KV cache "
           "%lld numbers per token (%+.2f %%)\n",
           out, paper_version(paper->layout), (double)params_count(s) / 1e6, s->rope_pairs,
           s->head_dim / 2, paper->strategy, s->d_kv, (long long)numbers,
           100.0 * ((double)numbers / (double)before - 1));
}

static Status import(const ImportOptions *options, const PaperConfig *paper, const char *dir)
{
    DType dtype;
    FileLock target;
    Model model;
    Status status;
    TRY(hf_check_target(dir, options->out));
    TRY(dtype_option(&dtype, options->dtype, dir));
    TRY(file_lock_directory(&target, options->out));
    TRY_GOTO(unlock, paper_load(&model, paper, dir, &options->pairs));
    TRY_GOTO(release, hf_save(&model, dir, dtype, options->out));
    print_result(paper, options->out);
release:
    model_release(&model);
unlock:
    file_lock_remove(&target);
    return status;
}

static const ImportOptions defaults = {.dtype = DTYPE_OF_MODEL};

static const Option options[] = {
    {"out", OPTION_TEXT, offsetof(ImportOptions, out), "DIR", "directory to write",
     .files = ANY_DIRECTORY, .required = true},
    {"ranks", OPTION_TEXT, offsetof(ImportOptions, pairs.ranks), "FILE.pth",
     "pairs by 2-norm: the file of ranks or scores that the model was converted with",
     .derived = "the one that config.json names, if it is beside the weights", .files = "*.pth"},
    {"rope-pairs", OPTION_TEXT, offsetof(ImportOptions, pairs.list), "P,P,...",
     "RoPE pairs that every KV head keeps, ascending from 0", .derived = "what config.json says"},
    {"dtype", OPTION_CHOICE, offsetof(ImportOptions, dtype), "TYPE", "number format of the weights",
     .choices = config_dtype_names, .derived = "the model's own"},
};

static Status run(const CommandLine *line)
{
    const char *dir = line->words[0];
    PaperConfig paper;
    TRY(paper_config_read(&paper, dir));
    const Status status = import(line->options, &paper, dir);
    paper_config_release(&paper);
    return status;
}

const Command cmd_import = {
    .name = "import",
    .summary = "make a model of one that was converted by the paper's own code",
    .description = "DIR is a Hugging Face directory that MHA2MLA v1.0 or v1.2 wrote. Its weights "
                   "stay as they are; the RoPE pairs that were kept, which are not in the "
                   "directory, come from a strategy that config.json names, a file of ranks, or "
                   "--rope-pairs.",
    COMMAND_OPTIONS(ImportOptions, options, defaults),
    .words = {"DIR", 1, 1, ANY_DIRECTORY},
    .examples =
        (const char *const[]){"mha2mla export runs/demo-dkv8/model --out runs/demo/paper "
                              "--format v1.2",
                              "mha2mla import runs/demo/paper --out runs/demo/imported", NULL},
    .run = run,
};
