#include "train/validation.h"

#include "base/log.h"
#include "eval/perplexity.h"

#include <math.h>
#include <omp.h>

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

Status validation_loss(double *out, const Validation *validation, const Comm *comm, Workspace *ws,
                       Batch *batch, const Model *model)
{
    Perplexity sum = {0};
    TRY(comm_agree(comm, perplexity_add(&sum, ws, model, validation->source, batch, comm->rank,
                                        validation->n_windows, comm->size)));
    double both[2] = {sum.loss_sum, sum.n_tokens};
    comm_sum_doubles(comm, both, 2);
    double loss = both[0] / both[1];
    if (!isfinite(loss)) // on all ranks alike
        return fail(FAILED,
                    "validation loss is %g over %lld windows; the weights are too large, lower "
                    "optim.lr or look at the base model",
                    fabs(loss), (long long)validation->n_windows);
    *out = loss;
    return OK;
}

static void place(Workspace *ws, Batch *batch, Arena *arena, const ModelShape *shape, int T)
{
    transformer_place(ws, arena, arena, shape, 1, T, omp_get_max_threads(), false);
    batch_place(batch, arena, 1, T);
}

Status validation_measure(double *out, const Config *config, const Comm *comm, const Model *model,
                          const char *tokenizer_sha256)
{
    if (!config->data.validation.given) {
        *out = NAN;
        return OK;
    }
    int T = config->data.seq_len;
    Validation validation;
    Workspace ws;
    Batch batch;
    Arena arena = arena_start("validation");
    place(&ws, &batch, &arena, &model->shape, T);
    Status status = validation_open(&validation, config, model->shape.vocab_size, tokenizer_sha256);
    if (status == OK)
        status = arena_allocate(&arena);
    TRY_GOTO(close, comm_agree(comm, status));
    place(&ws, &batch, &arena, &model->shape, T);
    transformer_start(&ws, model);
    double loss;
    TRY_GOTO(close, validation_loss(&loss, &validation, comm, &ws, &batch, model));
    log_info("validation loss of the original model: %.4f", loss);
    *out = loss;
close:
    arena_release(&arena);
    validation_close(&validation);
    return status;
}
