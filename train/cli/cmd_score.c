// mha2mla score: the calibration pass alone; its file serves any number of conversions.
#include "base/file.h"
#include "model/hf/hf.h"
#include "train/agreement.h"
#include "train/calibrate_scores.h"
#include "train/calibration_data.h"
#include "train/cli/compute_options.h"
#include "train/plan/blas.h"
#include "train/plan/compute_check.h"

#include <stdio.h>

typedef struct ScoreOptions {
    const char *data, *out; // data: path or glob
    int64_t samples, seq_len, seed, windows, attention_windows, window_len;
    StatisticsPool pool;
    ComputeOptions compute;
} ScoreOptions;

// The whole model: unlike a conversion, a forward pass needs all layers again and again.
static Status load_original(Model *out, const char *dir)
{
    TRY(hf_load(out, dir));
    if (!shape_is_mla(&out->shape))
        return OK;
    model_release(out);
    return fail(BAD_INPUT, "%s: has latent attention already; score its original", dir);
}

// Collective. The file is written by rank 0 from sums that all ranks have.
static Status score(const Comm *comm, const ScoreOptions *options, const char *dir)
{
    Model model = {0};
    Mixture *mixture = NULL;
    CalibrationSettings settings = {.samples = (int)options->samples,
                                    .windows = (int)options->windows,
                                    .attention_windows = (int)options->attention_windows,
                                    .window_len = (int)options->window_len,
                                    .pool = options->pool};
    // A mistake in --out would show only after minutes of work otherwise.
    TRY(comm_agree(comm, comm->rank == 0 ? file_check_target(options->out) : OK));
    TRY(agreement_model(comm, dir));
    Status status = load_original(&model, dir);
    settings.seq_len = options->seq_len > 0 ? (int)options->seq_len : shape_longest(&model.shape);
    CalibrationData shards = {
        .shards = options->data, .seq_len = settings.seq_len, .seed = options->seed};
    if (status == OK)
        status = calibration_data_open(&mixture, &shards, &model.shape, dir);
    json_t *data = status == OK ? mixture_fingerprint(mixture) : NULL;
    TRY_GOTO(release, agreement_fingerprint(comm, data, status));
    settings.compute = options->compute.type;
    TRY_GOTO(release, calibrate_scores(options->out, &settings, comm, &model, mixture));
    if (comm->rank == 0)
        printf("scores of %d samples of %d tokens written to %s\n", settings.samples,
               settings.seq_len, options->out);
release:
    mixture_close(mixture);
    model_release(&model);
    return status;
}

static const ScoreOptions defaults = {
    .samples = 1024, .seed = 42, .attention_windows = 12, .window_len = 512};

static const Option options[] = {
    {"data", OPTION_TEXT, offsetof(ScoreOptions, data), "SHARD.h5",
     "token shard, or a glob pattern of several", .files = "*.h5", .required = true},
    {"out", OPTION_TEXT, offsetof(ScoreOptions, out), "SCORES.h5", "file to write", .files = "*.h5",
     .required = true},
    {"samples", OPTION_INT, offsetof(ScoreOptions, samples), "N", "sequences to read", 1,
     INT32_MAX},
    {"seq-len", OPTION_INT, offsetof(ScoreOptions, seq_len), "T", "tokens of a sequence", 1,
     1 << 24, .derived = "the model's longest"},
    {"seed", OPTION_INT, offsetof(ScoreOptions, seed), "SEED", "decides which sequences are read",
     0, INT64_MAX},
    {"windows", OPTION_INT, offsetof(ScoreOptions, windows), "N",
     "sequences whose activations' statistics are collected, which convert --method whitened and "
     "closed need; 40 are enough for small models. 0: none",
     0, 1 << 24},
    {"attention-windows", OPTION_INT, offsetof(ScoreOptions, attention_windows), "N",
     "of these, sequences for the statistics of attention weights, which take the most time", 1,
     1 << 24},
    {"window-len", OPTION_INT, offsetof(ScoreOptions, window_len), "T",
     "tokens of such a sequence at most; longer ones are cut", 1, 1 << 24},
    {"pool", OPTION_CHOICE, offsetof(ScoreOptions, pool), "OVER",
     "heads that share their statistics: more memory and a larger file the fewer they are",
     .choices = statistics_pool_names},
    COMPUTE_OPTIONS(ScoreOptions, compute),
};

static Status run(const CommandLine *line)
{
    const ScoreOptions *given = line->options;
    TRY(blas_check(line->comm));
    TRY(compute_check(line->comm, given->compute.type, given->compute.emulate, "--compute"));
    return score(line->comm, given, line->words[0]);
}

const Command cmd_score = {
    .name = "score",
    .summary = "measure which RoPE pairs matter (calibration pass)",
    .description = "Runs the original model over sequences of the data and writes the norms of "
                   "every RoPE pair, from which the 2-norm strategy of convert chooses; with "
                   "--windows also the statistics of activations that the methods whitened and "
                   "closed need. The ranks share the sequences.",
    COMMAND_OPTIONS(ScoreOptions, options, defaults),
    .words = {"MODEL", 1, 1, ANY_DIRECTORY},
    .is_on_ranks = true,
    .examples = (const char *const[]){"mpirun -n 2 mha2mla score configs/demo/model --data "
                                      "runs/demo/shards/train.h5 --out runs/demo/scores.h5",
                                      NULL},
    .run = run,
};
