// The loss over a fixed set of windows, the same on any number of ranks and micro-batches: the
// ranks take parts in turn, each part's sum is stored in its own place, and all places are added in
// order after one exchange.
#include "train/validation.h"

#include "base/checksum.h"
#include "base/log.h"
#include "base/progress.h"
#include "eval/forward_pass.h"
#include "train/stop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// The name of a set is the beginning of a SHA-256 over what decides which tokens are read. Files
// may be moved and renamed, so their names do not count.
static Status name_set(char out[VALIDATION_SET_BYTES], const Source *source, int64_t n_windows,
                       int seq_len)
{
    json_t *shards = source_fingerprint(source);
    for (size_t i = 0; i < json_array_size(shards); i++)
        json_object_del(json_array_get(shards, i), "file");
    json_t *set = json_pack("{s:o?, s:I, s:i}", "shards", shards, "windows", (json_int_t)n_windows,
                            "seq_len", seq_len);
    char *text = set != NULL ? json_dumps(set, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    char sha256[SHA256_HEX_BYTES];
    Status status =
        text != NULL ? OK : fail(FAILED, "no memory for the validation data's fingerprint");
    TRY_GOTO(release, status);
    TRY_GOTO(release, checksum_sha256_bytes(sha256, text, (int64_t)strlen(text)));
    snprintf(out, VALIDATION_SET_BYTES, "%.*s", VALIDATION_SET_BYTES - 1, sha256);
release:
    free(text);
    json_decref(set);
    return status;
}

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
    return name_set(out->set, out->source, out->n_windows, config->data.seq_len);
}

void validation_close(Validation *validation)
{
    source_close(validation->source);
    *validation = (Validation){0};
}

// Part b by rank b mod N; nothing if there are fewer parts.
static Status add_part(double *losses, int64_t n_parts, int64_t b, LossOfPart *loss_of,
                       void *context)
{
    TRY(stop_check());
    return b < n_parts ? loss_of(&losses[b], context, b) : OK;
}

// The ranks agree after each turn, so that all leave together when one fails or is asked to stop.
Status validation_sum_parts(double *loss_sum, int64_t n_parts, int windows_per_part,
                            const Comm *comm, LossOfPart *loss_of, void *context)
{
    double *losses = calloc((size_t)n_parts, sizeof *losses), sum = 0;
    ProgressMeter meter = progress_start("validation", "windows", n_parts * windows_per_part);
    Status status =
        losses != NULL ? OK : fail(FAILED, "no memory for %lld losses", (long long)n_parts);
    TRY_GOTO(release, comm_agree(comm, status));
    for (int64_t b = 0; b < n_parts; b += comm->size) {
        TRY_GOTO(release,
                 comm_agree(comm, add_part(losses, n_parts, b + comm->rank, loss_of, context)));
        progress_show(&meter, (b + comm->size) * windows_per_part);
    }
    // One rank has the loss of a part, all others 0: adding them does not round. The sum over
    // parts is taken in their order on every rank.
    comm_sum_doubles(comm, losses, n_parts);
    for (int64_t b = 0; b < n_parts; b++)
        sum += losses[b];
    *loss_sum = sum;
release:
    progress_end(&meter);
    free(losses);
    return status;
}

typedef struct Batches {
    Source *source;
    int64_t n_windows;
    Workspace *ws;
    Batch *batch;
    const Model *model;
} Batches;

// The last batch may be smaller than placed_B.
static Status batch_loss(double *loss_sum, void *context, int64_t b)
{
    const Batches *batches = context;
    const int capacity = batches->ws->placed_B;
    const int64_t left = batches->n_windows - b * capacity;
    return perplexity_batch(loss_sum, batches->ws, batches->model, batches->source, batches->batch,
                            b * capacity, left < capacity ? (int)left : capacity);
}

Status validation_sum(double *loss_sum, Source *source, int64_t n_windows, const Comm *comm,
                      Workspace *ws, Batch *batch, const Model *model)
{
    const int capacity = ws->placed_B;
    Batches batches = {source, n_windows, ws, batch, model};
    return validation_sum_parts(loss_sum, (n_windows + capacity - 1) / capacity, capacity, comm,
                                batch_loss, &batches);
}

// Mean over tokens, in nats. Not finite is an error here and not a value: the training would go on
// with broken weights.
Status validation_loss(double *out, const Validation *validation, const Comm *comm, Workspace *ws,
                       Batch *batch, const Model *model)
{
    double sum;
    TRY(validation_sum(&sum, validation->source, validation->n_windows, comm, ws, batch, model));
    const double loss = sum / ((double)validation->n_windows * ws->T);
    if (!isfinite(loss)) // all ranks have the same sum, so all fail here
        return fail(FAILED,
                    "validation loss is %g over %lld windows; the weights are too large, lower "
                    "optim.lr or look at the base model",
                    fabs(loss), (long long)validation->n_windows);
    *out = loss;
    return OK;
}

// With a workspace of its own, for the original model, before the trainer's exists.
Status validation_measure(double *out, const Config *config, const Comm *comm, const Model *model,
                          const char *tokenizer_sha256)
{
    if (!config->data.validation.given) {
        *out = NAN;
        return OK;
    }
    Validation validation;
    ForwardPass pass = {0};
    double loss;
    Status status = validation_open(&validation, config, model->shape.vocab_size, tokenizer_sha256);
    TRY_GOTO(close, comm_agree(comm, status));
    TRY_GOTO(close, comm_agree(comm, forward_pass_start(&pass, model, config->data.seq_len,
                                                        config->train.compute)));
    TRY_GOTO(close, validation_loss(&loss, &validation, comm, &pass.ws, &pass.batch, model));
    log_info("validation loss of the original model: %.4f", loss);
    *out = loss;
close:
    forward_pass_release(&pass);
    validation_close(&validation);
    return status;
}
