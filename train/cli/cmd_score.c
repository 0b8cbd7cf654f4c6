// mha2mla score: the calibration pass alone; its file serves any number of conversions.
#include "base/file.h"
#include "data/tokenizer/tokenizer_file.h"
#include "model/hf/hf.h"
#include "train/calibrate.h"
#include "train/cli/options.h"
#include "train/plan/blas.h"

#include <stdio.h>

static Status open_data(Mixture **out, const SourceSpec *spec, const Model *model, const char *dir,
                        int seq_len, uint64_t seed)
{
    char sha256[SHA256_HEX_BYTES];
    TRY(tokenizer_file_sha256(sha256, dir));
    return mixture_open(out, spec, 1, seq_len, seed, sha256[0] != '\0' ? sha256 : NULL,
                        model->shape.vocab_size);
}

static Status score(const Comm *comm, const char *dir, char *pattern, const char *out_path,
                    int samples, int64_t seq_len, uint64_t seed)
{
    Model model = {0};
    Mixture *mixture = NULL;
    RopeScores scores = {0};
    char name[] = "calibration";
    SourceSpec spec = {.name = name, .shards = &pattern, .n_shards = 1, .weight = 1};
    Status status = comm->rank == 0 ? file_check_target(out_path) : OK;
    TRY(comm_agree(comm, status));
    status = hf_load(&model, dir);
    if (status == OK && shape_is_mla(&model.shape))
        status = fail(BAD_INPUT, "%s: has latent attention already; score its original", dir);
    int T = seq_len > 0 ? (int)seq_len : model.shape.max_positions;
    if (status == OK)
        status = open_data(&mixture, &spec, &model, dir, T, seed);
    TRY_GOTO(release, comm_agree(comm, status));
    TRY_GOTO(release, calibrate_run(&scores, comm, &model, mixture, samples, T));
    TRY_GOTO(release,
             comm_agree(comm, comm->rank == 0 ? rope_scores_write(&scores, out_path) : OK));
    if (comm->rank == 0)
        printf("scores of %d samples of %d tokens written to %s\n", samples, T, out_path);
release:
    rope_scores_release(&scores);
    mixture_close(mixture);
    model_release(&model);
    return status;
}

static Status parse_and_score(const Comm *comm, int argc, char **argv)
{
    const char *data = NULL, *out_path = NULL;
    int64_t samples = 1024, seq_len = 0, seed = 42;
    const Option options[] = {
        {"data", OPTION_STRING, &data, "SHARD.h5", "token shard, or a glob of them",
         .required = true},
        {"out", OPTION_STRING, &out_path, "SCORES.h5", "file to write", .required = true},
        {"samples", OPTION_INT, &samples, "N", "sequences to read", .least = 1, .most = INT32_MAX},
        {"seq-len", OPTION_INT, &seq_len, "T", "tokens of a sequence (default the model's longest)",
         .least = 1, .most = 1 << 24},
        {"seed", OPTION_INT, &seed, "SEED", "which samples", .least = 0, .most = INT64_MAX},
    };
    Arguments rest;
    TRY(options_parse(&rest, &cmd_score, options, sizeof options / sizeof options[0], argc, argv));
    if (rest.help_shown)
        return OK;
    if (rest.n_words != 1)
        return fail(BAD_INPUT, "score needs one MODEL, got %d; see mha2mla score --help",
                    rest.n_words);
    blas_check();
    return score(comm, rest.words[0], (char *)(uintptr_t)data, out_path, (int)samples, seq_len,
                 (uint64_t)seed);
}

static Status run_score(int argc, char **argv)
{
    return comm_run(parse_and_score, argc, argv);
}

const Command cmd_score = {
    .name = "score",
    .summary = "measure which RoPE pairs matter (calibration pass)",
    .usage = "MODEL --data SHARD.h5 --out SCORES.h5 [--samples N] [--seq-len T] [--seed SEED]",
    .example = "mpirun -n 2 mha2mla score configs/demo/model --data runs/demo/shards/train.h5 "
               "--out runs/demo/scores.h5",
    .run = run_score,
};
