// mha2mla convert: conversion without training, from files to files. The original is never in
// memory as a whole; ranks share the layers.
#include "base/log.h"
#include "model/convert/rope_select.h"
#include "model/hf/hf.h"
#include "train/cli/options.h"
#include "train/plan/blas.h"
#include "train/prepare.h"

#include <stdio.h>
#include <string.h>

typedef struct Request {
    const char *dir, *out, *rope, *svd, *scores, *dtype;
    int64_t rope_pairs, d_kv;
    RopeStrategy strategy; // of rope
    SvdKind svd_kind;      // of svd
} Request;

static Status parse_svd(SvdKind *out, const char *name)
{
    for (SvdKind kind = SVD_JOINT; kind <= SVD_SPLIT; kind++)
        if (strcmp(name, shape_svd_name(kind)) == 0) {
            *out = kind;
            return OK;
        }
    return fail(BAD_INPUT, "--svd is '%s', allowed are joint and split", name);
}

static Status choose_pairs(Model *mla, const ModelShape *original, const Request *request)
{
    RopeScores scores = {0};
    if (request->strategy == ROPE_2NORM)
        TRY(rope_scores_read(&scores, original, request->scores));
    Status status = rope_select(mla->rope_pairs, &mla->shape, mla->shape.rope_pairs,
                                request->strategy, &scores);
    rope_scores_release(&scores);
    return status;
}

static Status choose_dtype(DType *out, const char *name, const char *dir)
{
    if (name != NULL)
        return dtype_parse_torch_name(out, name) == OK ? OK : fail_within(BAD_INPUT, "--dtype");
    TRY(hf_weights_dtype(out, dir));
    if (*out != DTYPE_F32 && *out != DTYPE_F16 && *out != DTYPE_BF16)
        return fail(BAD_INPUT, "%s: the embedding's dtype is %s, supported are F32, F16 and BF16",
                    dir, dtype_name(*out));
    return OK;
}

// The converted model with its pairs, empty but for them.
static Status create_converted(Replica *mla, const Comm *comm, CommGroup *group,
                               const ModelShape *original, const Request *request)
{
    ModelShape shape;
    Status status = shape_convert(&shape, original, (int)request->rope_pairs, (int)request->d_kv,
                                  request->svd_kind);
    if (status != OK)
        fail_write_prefix("%s", request->dir);
    TRY(comm_agree(comm, status));
    TRY(replica_create(mla, comm, group, &shape));
    return comm_agree(comm, choose_pairs(&mla->model, original, request));
}

static Status convert(const Comm *comm, const Request *request)
{
    HfSource *files = NULL;
    CommGroup group = {0};
    Replica mla = {0};
    DType dtype;
    Status status = comm->rank == 0 ? hf_check_target(request->dir, request->out) : OK;
    if (status == OK)
        status = choose_dtype(&dtype, request->dtype, request->dir);
    if (status == OK)
        status = hf_source_open(&files, request->dir);
    TRY_GOTO(release, comm_agree(comm, status));
    const WeightSource original = hf_source_weights(files);
    TRY_GOTO(release, comm_group_start(&group, comm, 0));
    TRY_GOTO(release, create_converted(&mla, comm, &group, original.shape, request));
    double start_s = log_seconds();
    TRY_GOTO(release, prepare_layers(&mla, &original));
    hf_source_warn_unused(files, request->dir);
    double seconds = log_seconds() - start_s;
    if (comm->rank == 0)
        status = hf_save(&mla.model, request->dir, dtype, request->out);
    TRY_GOTO(release, comm_agree(comm, status));
    int64_t after = shape_cache_numbers(&mla.model.shape),
            before = shape_cache_numbers(original.shape);
    if (comm->rank == 0)
        printf("%s: %.2f M parameters, KV cache %lld numbers per token (%+.2f %%), %d layers in "
               "%.1f s\n",
               request->out, (double)params_count(&mla.model.shape) / 1e6, (long long)after,
               100.0 * ((double)after / (double)before - 1), mla.model.shape.n_layers, seconds);
release:
    replica_release(&mla);
    comm_group_end(&group);
    hf_source_close(files);
    return status;
}

static Status parse_and_convert(const Comm *comm, int argc, char **argv)
{
    Request request = {.rope = "2-norm", .svd = "joint"};
    const Option options[] = {
        {"out", OPTION_STRING, &request.out, "DIR", "directory to write", .required = true},
        {"rope", OPTION_STRING, &request.rope, "STRATEGY", "high, low, uniform or 2-norm"},
        {"rope-pairs", OPTION_INT, &request.rope_pairs, "R", "RoPE pairs kept per KV head",
         .least = 1, .most = INT32_MAX, .required = true},
        {"svd", OPTION_STRING, &request.svd, "KIND", "joint or split"},
        {"d-kv", OPTION_INT, &request.d_kv, "N", "latent width per KV head", .least = 1,
         .most = INT32_MAX, .required = true},
        {"scores", OPTION_STRING, &request.scores, "SCORES.h5",
         "file of mha2mla score, for 2-norm"},
        {"dtype", OPTION_STRING, &request.dtype, "TYPE",
         "float32, bfloat16 or float16 (default the model's own)"},
    };
    Arguments rest;
    TRY(options_parse(&rest, &cmd_convert, options, sizeof options / sizeof options[0], argc,
                      argv));
    if (rest.help_shown)
        return OK;
    if (rest.n_words != 1)
        return fail(BAD_INPUT, "convert needs one MODEL, got %d; see mha2mla convert --help",
                    rest.n_words);
    request.dir = rest.words[0];
    if (rope_strategy_parse(&request.strategy, request.rope) != OK)
        return fail_within(BAD_INPUT, "--rope");
    TRY(parse_svd(&request.svd_kind, request.svd));
    blas_check();
    if (request.strategy == ROPE_2NORM && request.scores == NULL)
        return fail(BAD_INPUT, "--rope 2-norm needs --scores; make them with mha2mla score");
    return convert(comm, &request);
}

static Status run_convert(int argc, char **argv)
{
    return comm_run(parse_and_convert, argc, argv);
}

const Command cmd_convert = {
    .name = "convert",
    .summary = "turn a model's attention into latent attention, without training",
    .usage = "MODEL --out DIR --rope-pairs R --d-kv N [--rope STRATEGY] [--svd KIND] "
             "[--scores SCORES.h5] [--dtype TYPE]",
    .example =
        "mha2mla convert configs/demo/model --out runs/demo/mla --rope uniform --rope-pairs 2 "
        "--d-kv 8",
    .run = run_convert,
};
