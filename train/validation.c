#include "train/validation.h"

#include "base/log.h"
#include "eval/inference.h"

#include <math.h>

Status validation_open(Validation *out, const Config *config, int vocab_size,
                       const char *tokenizer_sha256)
{
    const ValidationConfig *given = &config->data.validation;
    *out = (Validation){0};
    if (!given->given)
        return OK;
    TRY(source_open(&out->source, "validation", given->shards, given->n_shards,
                    config->data.seq_len, tokenizer_sha256, vocab_size));
    out->n_windows = source_n_samples(out->source);
    if (out->n_windows > given->sequences)
        out->n_windows = given->sequences;
    return OK;
}

void validation_close(Validation *validation)
{
    source_close(validation->source);
    *validation = (Validation){0};
}

Status validation_sum(Perplexity *out, Source *source, int64_t n_windows, const Comm *comm,
                      Workspace *ws, Batch *batch, const Model *model)
{
    Perplexity own = {0};
    TRY(comm_agree(
        comm, perplexity_add(&own, ws, model, source, batch, comm->rank, n_windows, comm->size)));
    double both[2] = {own.loss_sum, own.n_tokens};
    comm_sum_doubles(comm, both, 2);
    *out = (Perplexity){both[0], both[1]};
    return OK;
}

Status validation_loss(double *out, const Validation *validation, const Comm *comm, Workspace *ws,
                       Batch *batch, const Model *model)
{
    Perplexity sum;
    TRY(validation_sum(&sum, validation->source, validation->n_windows, comm, ws, batch, model));
    double loss = sum.loss_sum / sum.n_tokens;
    if (!isfinite(loss)) // on all ranks alike
        return fail(FAILED,
                    "validation loss is %g over %lld windows; the weights are too large, lower "
                    "optim.lr or look at the base model",
                    fabs(loss), (long long)validation->n_windows);
    *out = loss;
    return OK;
}

Status validation_measure(double *out, const Config *config, const Comm *comm, const Model *model,
                          const char *tokenizer_sha256)
{
    if (!config->data.validation.given) {
        *out = NAN;
        return OK;
    }
    Validation validation;
    Inference inference = {0};
    Status status = validation_open(&validation, config, model->shape.vocab_size, tokenizer_sha256);
    if (status == OK)
        status = inference_start(&inference, model, config->data.seq_len);
    TRY_GOTO(close, comm_agree(comm, status));
    double loss;
    TRY_GOTO(close,
             validation_loss(&loss, &validation, comm, &inference.ws, &inference.batch, model));
    log_info("validation loss of the original model: %.4f", loss);
    *out = loss;
close:
    inference_release(&inference);
    validation_close(&validation);
    return status;
}
