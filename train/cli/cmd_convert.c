// mha2mla convert: conversion without training, from files to files. The original is never in
// memory as a whole; ranks share the layers.
#include "base/file_lock.h"
#include "base/log.h"
#include "model/convert/rope_select.h"
#include "model/hf/hf.h"
#include "train/agreement.h"
#include "train/cli/command/command.h"
#include "train/config/config_table.h"
#include "train/plan/blas.h"
#include "train/prepare.h"

#include <stdio.h>
#include <string.h>

typedef struct ConvertOptions {
    const char *out, *scores;
    int64_t rope_pairs, d_kv;
    RopeStrategy rope;
    SvdKind svd;
    int dtype; // a DType, or DTYPE_OF_MODEL
} ConvertOptions;

enum { DTYPE_OF_MODEL = -1 };

// Each rank chooses from the same file of scores, which was compared (agreement_file), so no
// message is needed.
static Status choose_pairs(Model *mla, const ModelShape *original, const ConvertOptions *options)
{
    RopeScores scores = {0};
    if (options->rope == ROPE_2NORM)
        TRY(rope_scores_read(&scores, original, options->scores));
    Status status =
        rope_select(mla->rope_pairs, &mla->shape, mla->shape.rope_pairs, options->rope, &scores);
    rope_scores_release(&scores);
    return status;
}

// Weights are written in the dtype of the original unless --dtype says otherwise, so that a model
// in bfloat16 does not double in size.
static Status choose_dtype(DType *out, int given, const char *dir)
{
    if (given != DTYPE_OF_MODEL) {
        *out = (DType)given;
        return OK;
    }
    TRY(hf_weights_dtype(out, dir));
    if (*out != DTYPE_F32 && *out != DTYPE_F16 && *out != DTYPE_BF16)
        return fail(BAD_INPUT, "%s: the embedding's dtype is %s, supported are F32, F16 and BF16",
                    dir, dtype_name(*out));
    return OK;
}

// The converted model without weights: memory, and the RoPE pairs, which the conversion of every
// layer needs.
static Status create_converted(Replica *mla, const Comm *comm, CommGroup *group,
                               const ModelShape *original, const ConvertOptions *options,
                               const char *dir)
{
    ModelShape shape;
    Status status =
        shape_convert(&shape, original, (int)options->rope_pairs, (int)options->d_kv, options->svd);
    TRY(comm_agree(comm, status == OK ? OK : fail_within(status, "%s", dir)));
    TRY(replica_create(mla, comm, group, &shape));
    return comm_agree(comm, choose_pairs(&mla->model, original, options));
}

// Finds what is wrong with the files before anything is computed.
static Status open_files(HfSource **out, DType *dtype, const Comm *comm,
                         const ConvertOptions *options, const char *dir, FileLock *target)
{
    if (comm->rank == 0) {
        TRY(hf_check_target(dir, options->out));
        TRY(file_lock_directory(target, options->out));
    }
    TRY(choose_dtype(dtype, options->dtype, dir));
    return hf_source_open(out, dir);
}

// Numbers per token of the KV cache, over all layers, and their change in percent.
static void print_result(const ModelShape *shape, const ModelShape *original, const char *out,
                         double seconds)
{
    const int64_t after = shape_cache_numbers(shape), before = shape_cache_numbers(original);
    printf("%s: %.2f M parameters, KV cache %lld numbers per token (%+.2f %%), %d layers in "
           "%.1f s\n",
           out, (double)params_count(shape) / 1e6, (long long)after,
           100.0 * ((double)after / (double)before - 1), shape->n_layers, seconds);
}

// Collective. First everything is compared and opened, then memory is asked for, then layers are
// converted; each step ends in an agreement. Rank 0 writes the result.
static Status convert(const Comm *comm, const ConvertOptions *options, const char *dir)
{
    HfSource *files = NULL;
    CommGroup group = {0};
    Replica mla = {0};
    FileLock target = {0};
    DType dtype;
    Status status;
    TRY(agreement_model(comm, dir));
    if (options->rope == ROPE_2NORM)
        TRY(agreement_file(comm, "--scores", options->scores));
    TRY_GOTO(release, comm_agree(comm, open_files(&files, &dtype, comm, options, dir, &target)));
    const WeightSource original = hf_source_weights(files);
    TRY_GOTO(release, comm_group_start(&group, comm, 0));
    TRY_GOTO(release, create_converted(&mla, comm, &group, original.shape, options, dir));
    double start_s = log_seconds();
    TRY_GOTO(release, prepare_layers(&mla, &original));
    hf_source_warn(files, dir);
    double seconds = log_seconds() - start_s;
    if (comm->rank == 0)
        status = hf_save(&mla.model, dir, dtype, options->out);
    TRY_GOTO(release, comm_agree(comm, status));
    if (comm->rank == 0)
        print_result(&mla.model.shape, original.shape, options->out, seconds);
release:
    replica_release(&mla);
    comm_group_end(&group);
    hf_source_close(files);
    file_lock_remove(&target);
    return status;
}

static const ConvertOptions defaults = {
    .rope = ROPE_2NORM, .svd = SVD_JOINT, .dtype = DTYPE_OF_MODEL};

static const Option options[] = {
    {"out", OPTION_TEXT, offsetof(ConvertOptions, out), "DIR", "directory to write",
     .files = ANY_DIRECTORY, .required = true},
    {"rope", OPTION_CHOICE, offsetof(ConvertOptions, rope), "STRATEGY",
     "which RoPE pairs a KV head keeps", .choices = config_rope_names},
    {"rope-pairs", OPTION_INT, offsetof(ConvertOptions, rope_pairs), "R",
     "RoPE pairs kept per KV head", 1, INT32_MAX, .required = true},
    {"svd", OPTION_CHOICE, offsetof(ConvertOptions, svd), "KIND",
     "one factorization of keys and values together (joint) or one of each (split)",
     .choices = shape_svd_names},
    {"d-kv", OPTION_INT, offsetof(ConvertOptions, d_kv), "N", "latent width per KV head", 1,
     INT32_MAX, .required = true},
    {"scores", OPTION_TEXT, offsetof(ConvertOptions, scores), "SCORES.h5",
     "file of mha2mla score, needed by the 2-norm strategy", .files = "*.h5"},
    {"dtype", OPTION_CHOICE, offsetof(ConvertOptions, dtype), "TYPE",
     "number format of the weights", .choices = config_dtype_names, .derived = "the model's own"},
};

// All that can be checked without files comes first.
static Status run(const CommandLine *line)
{
    const ConvertOptions *given = line->options;
    TRY(blas_check(line->comm));
    // Calibration is a command of its own: one file of scores serves any number of conversions.
    if (given->rope == ROPE_2NORM && given->scores == NULL)
        return fail(BAD_INPUT, "--rope 2-norm needs --scores; make them with mha2mla score");
    return convert(line->comm, given, line->words[0]);
}

const Command cmd_convert = {
    .name = "convert",
    .summary = "turn a model's attention into latent attention, without training",
    .description = "Keeps RoPE on some pairs of every KV head and factorizes the other key rows "
                   "and the values through a latent. The ranks share the layers.",
    COMMAND_OPTIONS(ConvertOptions, options, defaults),
    .words = {"MODEL", 1, 1, ANY_DIRECTORY},
    .is_on_ranks = true,
    .examples = (const char *const[]){"mha2mla convert configs/demo/model --out runs/demo/mla "
                                      "--rope uniform --rope-pairs 2 --d-kv 8",
                                      NULL},
    .run = run,
};
