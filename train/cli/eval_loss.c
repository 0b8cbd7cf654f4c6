// mha2mla eval --perplexity: loss of a model, original or converted, over the windows of a shard.
#include "base/intmath.h"
#include "data/tokenizer/tokenizer_file.h"
#include "eval/cached_loss.h"
#include "eval/forward_pass.h"
#include "model/hf/hf.h"
#include "train/agreement.h"
#include "train/cli/eval_kinds.h"
#include "train/validation.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { DEFAULT_SEQ_LEN = 2048 };

// A converted model is measured at the length that it was healed at: longer windows would measure
// positions whose loss it has not learned.
static int default_seq_len(const ModelShape *shape)
{
    const int wanted = shape->healed_seq_len > 0 ? shape->healed_seq_len : DEFAULT_SEQ_LEN;
    return min_int(wanted, shape_longest(shape));
}

// The windows that validation in training reads, one behind the other from the start of the shard.
// A model without tokenizer.json cannot be checked against the shard.
static Status open_windows(Source **out, const EvalOptions *options, const ModelShape *shape,
                           const char *dir, int T)
{
    char sha256[SHA256_HEX_BYTES];
    TRY(tokenizer_file_sha256(sha256, dir));
    char *shards = (char *)(uintptr_t)options->shards;
    return source_open(out, "perplexity", &shards, 1, T, sha256[0] != '\0' ? sha256 : NULL,
                       shape->vocab_size);
}

typedef struct Evaluation {
    ModelShape shape;
    int seq_len;
    Source *source;
    // The forward of training over whole windows.
    Model model;
    ForwardPass pass;
    // Decoding over a KV cache.
    KvFormat format;
    InferWeights weights;
    CachedLoss *cached;
    int32_t *sample; // [seq_len + 1]
} Evaluation;

static bool is_cached(const EvalOptions *options)
{
    return options->kv.bits != NULL;
}

// One line that scripts can split; perplexity is exp of the mean loss.
static void print_loss(const Evaluation *eval, bool cached, double loss, int64_t n_windows)
{
    const int T = eval->seq_len;
    printf("loss %.4f nats/token  perplexity %.4f  %lld tokens in %lld windows of %d", loss,
           exp(loss), (long long)n_windows * T, (long long)n_windows, T);
    char text[KV_FORMAT_TEXT_BYTES];
    if (cached)
        printf("  KV cache %s: %.1f bytes/token", kv_format_describe(text, &eval->format),
               kv_format_bytes_per_token(&eval->format, &eval->shape));
    printf("\n");
}

static Status open_cached(Evaluation *eval, const EvalOptions *options, const char *dir)
{
    TRY(options->is_rotated ? infer_weights_load_rotated(&eval->weights, dir, options->compute.type)
                            : infer_weights_load(&eval->weights, dir, options->compute.type));
    TRY(cached_loss_create(&eval->cached, &eval->weights, &eval->format, eval->seq_len));
    eval->sample = malloc(((size_t)eval->seq_len + 1) * sizeof *eval->sample);
    return eval->sample != NULL ? OK : fail(FAILED, "no memory for a window");
}

// What was opened before an error is released by the caller.
static Status open_evaluation(Evaluation *eval, const EvalOptions *options, const char *dir)
{
    TRY(kv_options_format(&eval->format, &options->kv, KV_BFLOAT16));
    TRY(hf_load_shape(&eval->shape, dir));
    const ModelShape *shape = &eval->shape;
    TRY(kv_format_check(&eval->format, shape));
    eval->seq_len = options->seq_len > 0 ? (int)options->seq_len : default_seq_len(shape);
    TRY(shape_check_length(shape, eval->seq_len, "--seq-len", dir));
    shape_warn_healed(shape, eval->seq_len, "--seq-len", dir);
    // The shard first: it may be shorter than a window, for which memory is allocated next.
    TRY(open_windows(&eval->source, options, shape, dir, eval->seq_len));
    if (is_cached(options))
        return open_cached(eval, options, dir);
    TRY(hf_load(&eval->model, dir));
    return forward_pass_start(&eval->pass, &eval->model, eval->seq_len, options->compute.type);
}

static void close_evaluation(Evaluation *eval)
{
    free(eval->sample);
    cached_loss_release(eval->cached);
    infer_weights_release(&eval->weights);
    forward_pass_release(&eval->pass);
    model_release(&eval->model);
    source_close(eval->source);
}

static Status window_loss(double *loss_sum, void *context, int64_t window)
{
    Evaluation *eval = context;
    TRY(source_read(eval->source, window, eval->sample));
    return cached_loss_window(loss_sum, eval->cached, eval->sample);
}

// Collective. Every rank loads the model and takes its share of the windows; the sum does not
// depend on their number (validation_sum_parts).
Status eval_loss(const Comm *comm, const EvalOptions *options, const char *dir)
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
    if (is_cached(options))
        TRY_GOTO(release, validation_sum_parts(&sum, end, 1, comm, window_loss, &eval));
    else
        TRY_GOTO(release, validation_sum(&sum, eval.source, end, comm, &eval.pass.ws,
                                         &eval.pass.batch, &eval.model));
    if (!isfinite(sum)) { // on all ranks alike
        status = fail(FAILED,
                      "%s: the loss over %lld tokens is not finite: numbers overflow; the weights "
                      "are damaged or from a run that diverged",
                      dir, (long long)end * T);
        goto release;
    }
    if (comm->rank == 0)
        print_loss(&eval, is_cached(options), sum / ((double)end * T), end);
release:
    close_evaluation(&eval);
    return status;
}
