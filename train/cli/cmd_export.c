// mha2mla export: a checkpoint, at any time in a run, or a model's directory in the format of
// another program.
#include "base/file_lock.h"
#include "model/deepseek/deepseek.h"
#include "model/gguf/gguf.h"
#include "model/hf/hf.h"
#include "model/paper/v12_layout.h"
#include "train/checkpoint/resume.h"
#include "train/cli/command/command.h"
#include "train/cli/dtype_option.h"
#include "train/config/config_table.h"
#include "train/inspect/inspect.h"

#include <stdio.h>

typedef enum ExportFormat { FORMAT_HF, FORMAT_DEEPSEEK, FORMAT_V12, FORMAT_GGUF } ExportFormat;
static const char *const format_names[] = {"hf", "deepseek", "v1.2", "gguf", NULL};

// A DType, or a format of numbers that only a GGUF has.
enum { DTYPE_Q8_0 = 3 };
static const char *const dtype_names[] = {
    [DTYPE_F32] = "float32",
    [DTYPE_F16] = "float16",
    [DTYPE_BF16] = "bfloat16",
    [DTYPE_Q8_0] = "q8_0",
    NULL,
};

typedef struct ExportOptions {
    const char *out;  // directory to write, or the file of FORMAT_GGUF
    const char *base; // NULL: the one the manifest names, or the model itself
    int dtype;        // of dtype_names, or DTYPE_OF_MODEL
    ExportFormat format;
    bool plain_rope;
} ExportOptions;

// What is exported: a checkpoint, or a model's directory.
typedef struct ExportSource {
    Checkpoint checkpoint; // open if is_checkpoint
    bool is_checkpoint;
    const char *base;      // borrowed: the model whose config.json and tokenizer it has; or NULL
    const char *tokenizer; // borrowed: without a base, the directory of its tokenizer; or NULL
    int dtype;             // of dtype_names
} ExportSource;

// `path` is a checkpoint, or a run, whose newest whole checkpoint is taken.
static Status open_checkpoint(Checkpoint *out, const char *path, const Comm *comm)
{
    char checkpoints[PATH_BYTES];
    bool is_found;
    TRY(file_join(checkpoints, path, "checkpoints"));
    if (!file_is_dir(checkpoints)) {
        if (!inspect_is_checkpoint(path))
            return fail(BAD_INPUT,
                        "%s: neither a checkpoint nor a run with checkpoints, nor a model", path);
        return resume_open(out, path, comm);
    }
    TRY(resume_find(out, &is_found, path, comm));
    return is_found ? OK : fail(BAD_INPUT, "%s: has no whole checkpoint", path);
}

static bool is_model(const char *path)
{
    char config[PATH_BYTES];
    return file_join(config, path, "config.json") == OK && file_exists(config);
}

// config.json's other keys and the tokenizer are not in a checkpoint: they are copied from the base
// model, or the tokenizer alone from the config's for a model that started from random weights.
static Status open_source(ExportSource *out, const ExportOptions *options, const char *path,
                          const Comm *comm)
{
    ExportSource source = {.is_checkpoint = !is_model(path), .dtype = DTYPE_F32};
    Status status;
    if (!source.is_checkpoint) {
        source.base = options->base != NULL ? options->base : path;
        if (options->dtype == DTYPE_OF_MODEL) {
            DType dtype;
            TRY(hf_saved_dtype(&dtype, path));
            source.dtype = (int)dtype;
        }
    } else {
        TRY(open_checkpoint(&source.checkpoint, path, comm));
        const Manifest *manifest = &source.checkpoint.manifest;
        source.base = options->base != NULL ? options->base : manifest->base;
        source.tokenizer = manifest->tokenizer;
        if (source.base != NULL && !file_is_dir(source.base)) {
            status = fail(BAD_INPUT,
                          "%s: is not there, the model that %s was trained from; name it with "
                          "--base",
                          source.base, source.checkpoint.dir);
            goto close;
        }
    }
    if (options->dtype != DTYPE_OF_MODEL)
        source.dtype = options->dtype;
    *out = source;
    return OK;
close:
    checkpoint_close(&source.checkpoint);
    return status;
}

static Status load(Model *out, const ExportSource *source, const char *path)
{
    return source->is_checkpoint ? checkpoint_load_model(out, &source->checkpoint)
                                 : hf_load(out, path);
}

static Status save_deepseek(const Model *model, const ExportSource *source,
                            const ExportOptions *options)
{
    Deepseek deepseek;
    TRY(deepseek_create(&deepseek, model, DEEPSEEK_HF, options->plain_rope));
    deepseek_describe(&deepseek, (DType)source->dtype);
    const Status status =
        deepseek_save(&deepseek, source->base, (DType)source->dtype, options->out);
    deepseek_release(&deepseek);
    return status;
}

static Status save_gguf(const Model *model, const ExportSource *source,
                        const ExportOptions *options)
{
    static const GgufType types[] = {
        [DTYPE_F32] = GGUF_F32,
        [DTYPE_F16] = GGUF_F16,
        [DTYPE_BF16] = GGUF_BF16,
        [DTYPE_Q8_0] = GGUF_Q8_0,
    };
    Gguf gguf;
    TRY(gguf_create(&gguf, model, types[source->dtype], options->plain_rope));
    gguf_describe(&gguf);
    const Status status =
        gguf_save(&gguf, source->base != NULL ? source->base : source->tokenizer, options->out);
    gguf_release(&gguf);
    return status;
}

static Status save(const Model *model, const ExportSource *source, const ExportOptions *options)
{
    if (options->format == FORMAT_GGUF)
        return save_gguf(model, source, options);
    if (source->base == NULL && source->tokenizer != NULL && file_is_dir(source->tokenizer))
        TRY(hf_copy_tokenizer(source->tokenizer, options->out));
    switch (options->format) {
    case FORMAT_HF:
        return hf_save(model, source->base, (DType)source->dtype, options->out);
    case FORMAT_DEEPSEEK:
        return save_deepseek(model, source, options);
    case FORMAT_V12:
        return v12_layout_save(model, source->base, (DType)source->dtype, options->out);
    case FORMAT_GGUF:
        break;
    }
    CHECK(false, "format %d", (int)options->format);
}

static void print_result(const Model *model, const ExportSource *source, const char *out)
{
    const double millions = (double)params_count(&model->shape) / 1e6;
    if (source->is_checkpoint)
        printf("%s: step %d of %s, %.2f M parameters\n", out,
               source->checkpoint.manifest.state.step, source->checkpoint.manifest.name, millions);
    else
        printf("%s: %.2f M parameters\n", out, millions);
}

// A directory is locked; a single file appears whole, whoever else writes it.
static Status take_target(FileLock *out, const ExportSource *source, const ExportOptions *options)
{
    if (options->format == FORMAT_GGUF)
        return gguf_check_target(options->out);
    TRY(hf_check_target(source->base, options->out));
    return file_lock_directory(out, options->out);
}

static Status export_source(const ExportOptions *options, const char *path, const Comm *comm)
{
    ExportSource source;
    Model model;
    FileLock target = {0};
    Status status;
    TRY(open_source(&source, options, path, comm));
    TRY_GOTO(close, take_target(&target, &source, options));
    TRY_GOTO(unlock, load(&model, &source, path));
    TRY_GOTO(release, save(&model, &source, options));
    print_result(&model, &source, options->out);
release:
    model_release(&model);
unlock:
    file_lock_remove(&target);
close:
    if (source.is_checkpoint)
        checkpoint_close(&source.checkpoint);
    return status;
}

static const ExportOptions defaults = {.dtype = DTYPE_OF_MODEL};

static const Option options[] = {
    {"out", OPTION_TEXT, offsetof(ExportOptions, out), "PATH",
     "directory to write; of gguf the file", .files = ANY_FILE, .required = true},
    {"format", OPTION_CHOICE, offsetof(ExportOptions, format), "NAME",
     "hf: this program's own, which transformers runs with the code beside it; deepseek: that of "
     "DeepSeek-V3, which other engines run as it is (converted models); v1.2: that of the paper's "
     "code (converted per KV head); gguf: one file for llama.cpp (original attention, and the "
     "shared form)",
     .choices = format_names},
    {"plain-rope", OPTION_FLAG, offsetof(ExportOptions, plain_rope), NULL,
     "deepseek, gguf: frequencies as vLLM and llama.cpp have them, for more slots in the KV cache"},
    {"base", OPTION_TEXT, offsetof(ExportOptions, base), "MODEL",
     "model that the run started from: config.json and tokenizer are taken from it",
     .derived = "the one in the run's config", .files = ANY_DIRECTORY},
    {"dtype", OPTION_CHOICE, offsetof(ExportOptions, dtype), "TYPE",
     "number format of the weights; q8_0: codes of 8 bits, of gguf alone", .choices = dtype_names,
     .derived = "float32; of a model its own"},
};

// Export is on ranks, so that resume_open() can be used as it is, but made by one process: the work
// is reading and writing one set of files.
static Status run(const CommandLine *line)
{
    const ExportOptions *given = line->options;
    if (given->plain_rope && given->format != FORMAT_DEEPSEEK && given->format != FORMAT_GGUF)
        return fail(BAD_INPUT, "--plain-rope is for --format deepseek and gguf");
    if (given->dtype == DTYPE_Q8_0 && given->format != FORMAT_GGUF)
        return fail(BAD_INPUT, "--dtype q8_0 is for --format gguf; a model's directory has "
                               "float32, float16 or bfloat16");
    if (line->comm->size > 1)
        return fail(BAD_INPUT, "export runs on one process; start it without mpirun");
    return export_source(given, line->words[0], line->comm);
}

const Command cmd_export = {
    .name = "export",
    .summary = "write a checkpoint as a Hugging Face model, or a model for another program",
    .description = "SOURCE is a checkpoint's directory, or that of a run, whose newest "
                   "checkpoint is taken, or a model. The run may still be training. "
                   "docs/export.md says which program runs which format.",
    COMMAND_OPTIONS(ExportOptions, options, defaults),
    .words = {"SOURCE", 1, 1, ANY_DIRECTORY},
    .is_on_ranks = true,
    .examples =
        (const char *const[]){
            "mha2mla export runs/demo-dkv8/checkpoints/step-00000060 --out runs/demo/step-60",
            "mha2mla export runs/demo-dkv8 --out runs/demo/newest --dtype bfloat16",
            "mha2mla export runs/demo-dkv8/model --out runs/demo/deepseek --format deepseek",
            "mha2mla export configs/demo/model --out demo.gguf --format gguf --dtype q8_0", NULL},
    .run = run,
};
