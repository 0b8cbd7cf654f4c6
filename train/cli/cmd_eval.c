// mha2mla eval: loss of a model, original or converted, over the windows of a shard.
#include "data/tokenizer/tokenizer_file.h"
#include "eval/forward_pass.h"
#include "model/hf/hf.h"
#include "train/agreement.h"
#include "train/cli/command/command.h"
#include "train/plan/blas.h"
#include "train/validation.h"

#include <math.h>
#include <stdio.h>

typedef struct EvalOptions {
    const char *shards; // path or glob
    int64_t seq_len;    // 0: default_seq_len()
    int64_t max_tokens; // 0: all
} EvalOptions;

enum { DEFAULT_SEQ_LEN = 2048 };

// A converted model is measured at the length that it was healed at: longer windows would measure
// positions whose loss it has not learned.
static int default_seq_len(const ModelShape *shape)
{
    const int wanted = shape->healed_seq_len > 0 ? shape->healed_seq_len : DEFAULT_SEQ_LEN;
    return wanted < shape->max_positions ? wanted : shape->max_positions;
}

// The windows that validation in training reads, one behind the other from the start of the shard.
// A model without tokenizer.json cannot be checked against the shard.
static Status open_windows(Source **out, const EvalOptions *options, const Model *model,
                           const char *dir, int T)
{
    char sha256[SHA256_HEX_BYTES];
    TRY(tokenizer_file_sha256(sha256, dir));
    char *shards = (char *)(uintptr_t)options->shards;
    return source_open(out, "perplexity", &shards, 1, T, sha256[0] != '\0' ? sha256 : NULL,
                       model->shape.vocab_size);
}

// One line that scripts can split; perplexity is exp of the mean loss.
static void print_loss(double loss, int64_t n_windows, int T)
{
    printf("loss %.4f nats/token  perplexity %.4f  %lld tokens in %lld windows of %d\n", loss,
           exp(loss), (long long)n_windows * T, (long long)n_windows, T);
}

typedef struct Evaluation {
    Model model;
    Source *source;
    ForwardPass pass;
    int seq_len;
} Evaluation;

// What was opened before an error is released by the caller.
static Status open_evaluation(Evaluation *eval, const EvalOptions *options, const char *dir)
{
    TRY(hf_load(&eval->model, dir));
    const ModelShape *shape = &eval->model.shape;
    eval->seq_len = options->seq_len > 0 ? (int)options->seq_len : default_seq_len(shape);
    TRY(shape_check_length(shape, eval->seq_len, "--seq-len", dir));
    shape_warn_healed(shape, eval->seq_len, "--seq-len", dir);
    // The shard first: it may be shorter than a window, for which memory is allocated next.
    TRY(open_windows(&eval->source, options, &eval->model, dir, eval->seq_len));
    return forward_pass_start(&eval->pass, &eval->model, eval->seq_len);
}

// Collective. Every rank loads the model and takes its share of the windows; the sum does not
// depend on their number (validation_sum).
static Status measure(const Comm *comm, const EvalOptions *options, const char *dir)
{
    Evaluation eval = {0};
    TRY(agreement_model(comm, dir));
    Status status = open_evaluation(&eval, options, dir);
    json_t *data = status == OK ? source_fingerprint(eval.source) : NULL;
    TRY_GOTO(release, agreement_fingerprint(comm, data, status));
    const int T = eval.seq_len;
    // Whole windows only: --max-tokens is rounded up to them.
    int64_t end = source_n_samples(eval.source), wanted = (options->max_tokens + T - 1) / T;
    if (options->max_tokens > 0 && wanted < end)
        end = wanted;
    double sum;
    TRY_GOTO(release, validation_sum(&sum, eval.source, end, comm, &eval.pass.ws, &eval.pass.batch,
                                     &eval.model));
    if (!isfinite(sum)) { // on all ranks alike
        status = fail(FAILED,
                      "%s: the loss over %lld tokens is not finite: numbers overflow; the weights "
                      "are damaged or from a run that diverged",
                      dir, (long long)end * T);
        goto release;
    }
    if (comm->rank == 0)
        print_loss(sum / ((double)end * T), end, T);
release:
    forward_pass_release(&eval.pass);
    source_close(eval.source);
    model_release(&eval.model);
    return status;
}

static const EvalOptions defaults = {0};

static const Option options[] = {
    {"perplexity", OPTION_TEXT, offsetof(EvalOptions, shards), "SHARD.h5",
     "token shard, or a glob pattern of several", .files = "*.h5", .required = true},
    {"seq-len", OPTION_INT, offsetof(EvalOptions, seq_len), "T", "tokens of a window", 1, 1 << 24,
     .derived = "that of the model's healing, else its longest, at most 2048"},
    {"max-tokens", OPTION_INT, offsetof(EvalOptions, max_tokens), "N",
     "measure at most this many tokens, rounded up to whole windows", 1, INT64_MAX / 2,
     .derived = "all"},
};

static Status run(const CommandLine *line)
{
    TRY(blas_check(line->comm));
    return measure(line->comm, line->options, line->words[0]);
}

const Command cmd_eval = {
    .name = "eval",
    .summary = "measure a model's loss over the windows of a token shard",
    .description = "Prints the mean cross-entropy in nats per token and the perplexity of an "
                   "original or a converted model. The ranks share the windows.",
    COMMAND_OPTIONS(EvalOptions, options, defaults),
    .words = {"MODEL", 1, 1, ANY_DIRECTORY},
    .is_on_ranks = true,
    .examples = (const char *const[]){"mha2mla eval runs/demo-dkv8/model --perplexity "
                                      "runs/demo/shards/valid.h5",
                                      NULL},
    .run = run,
};
