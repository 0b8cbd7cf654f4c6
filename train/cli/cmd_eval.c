// mha2mla eval: loss of a model, original or converted, over the windows of a shard.
#include "data/tokenizer/tokenizer_file.h"
#include "eval/inference.h"
#include "model/hf/hf.h"
#include "train/cli/options.h"
#include "train/parallel/comm.h"
#include "train/plan/blas.h"
#include "train/validation.h"

#include <math.h>
#include <stdio.h>

typedef struct Request {
    const char *dir;     // of the model
    char *shards;        // path or glob
    int64_t seq_len;     // 0: the model's longest, at most DEFAULT_SEQ_LEN
    int64_t most_tokens; // 0: all
} Request;

enum { DEFAULT_SEQ_LEN = 2048 };

static Status open_windows(Source **out, const Request *request, const Model *model, int T)
{
    char sha256[SHA256_HEX_BYTES];
    TRY(tokenizer_file_sha256(sha256, request->dir));
    char *shards = request->shards;
    return source_open(out, "perplexity", &shards, 1, T, sha256[0] != '\0' ? sha256 : NULL,
                       model->shape.vocab_size);
}

static void print_loss(double loss, int64_t n_windows, int T)
{
    printf("loss %.4f nats/token  perplexity %.4f  %lld tokens in %lld windows of %d\n", loss,
           exp(loss), (long long)n_windows * T, (long long)n_windows, T);
}

static Status measure(const Comm *comm, const Request *request)
{
    Model model = {0};
    Source *source = NULL;
    Inference inference = {0};
    int T = 0;
    Status status = hf_load(&model, request->dir);
    if (status == OK) {
        int longest = model.shape.max_positions;
        T = request->seq_len > 0 ? (int)request->seq_len
                                 : (longest < DEFAULT_SEQ_LEN ? longest : DEFAULT_SEQ_LEN);
        status = open_windows(&source, request, &model, T); // before memory for windows of T
    }
    if (status == OK)
        status = inference_start(&inference, &model, T);
    TRY_GOTO(release, comm_agree(comm, status));

    int64_t end = source_n_samples(source), wanted = (request->most_tokens + T - 1) / T;
    if (request->most_tokens > 0 && wanted < end)
        end = wanted;
    double sum;
    TRY_GOTO(release,
             validation_sum(&sum, source, end, comm, &inference.ws, &inference.batch, &model));
    if (!isfinite(sum)) { // on all ranks alike
        status = fail(FAILED,
                      "%s: the loss over %lld tokens is not finite: numbers overflow; the weights "
                      "are damaged or from a run that diverged",
                      request->dir, (long long)end * T);
        goto release;
    }
    if (comm->rank == 0)
        print_loss(sum / ((double)end * T), end, T);
release:
    inference_release(&inference);
    source_close(source);
    model_release(&model);
    return status;
}

static Status parse_and_measure(const Comm *comm, int argc, char **argv)
{
    Request request = {0};
    const char *shards = NULL;
    const Option options[] = {
        {"perplexity", OPTION_STRING, &shards, "SHARD.h5", "token shard, or a glob of them",
         .required = true},
        {"seq-len", OPTION_INT, &request.seq_len, "T",
         "tokens of a window (default the model's longest, at most 2048)", .least = 1,
         .most = 1 << 24},
        {"max-tokens", OPTION_INT, &request.most_tokens, "N",
         "stop after so many tokens (default all)", .least = 1, .most = INT64_MAX / 2},
    };
    Arguments rest;
    TRY(options_parse(&rest, &cmd_eval, options, sizeof options / sizeof options[0], argc, argv));
    if (rest.help_shown)
        return OK;
    if (rest.n_words != 1)
        return fail(BAD_INPUT, "eval needs one MODEL, got %d; see mha2mla eval --help",
                    rest.n_words);
    request.dir = rest.words[0];
    request.shards = (char *)(uintptr_t)shards;
    blas_check();
    return measure(comm, &request);
}

static Status run_eval(int argc, char **argv)
{
    return comm_run(parse_and_measure, argc, argv);
}

const Command cmd_eval = {
    .name = "eval",
    .summary = "measure a model's loss over the windows of a token shard",
    .usage = "MODEL --perplexity SHARD.h5 [--seq-len T] [--max-tokens N]",
    .example = "mha2mla eval runs/demo-dkv8/model --perplexity runs/demo/shards/valid.h5",
    .run = run_eval,
};
