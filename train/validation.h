// Validation loss: mean over the first windows of the validation shards, which the ranks share.
// Which windows they are has a name, `set`: the same for the same tokens wherever the shards lie,
// another one for other shards, another data.seq_len or another number of windows.
//
//     Validation validation = {0};
//     TRY(validation_open(&validation, &config, vocab_size, sha256));  // not collective
//     TRY(validation_loss(&loss, &validation, &comm, &ws, &batch, &model));
//     validation_close(&validation);
#ifndef MHA2MLA_TRAIN_VALIDATION_H
#define MHA2MLA_TRAIN_VALIDATION_H

#include "data/batch.h"
#include "data/shards/source.h"
#include "eval/perplexity.h"
#include "model/transformer/transformer.h"
#include "train/checkpoint/run_state.h"
#include "train/config/config.h"
#include "train/parallel/comm.h"

typedef struct Validation {
    Source *source; // owned; NULL: none configured
    int64_t n_windows;
    char set[VALIDATION_SET_BYTES]; // "": none configured
} Validation;

// tokenizer_sha256 may be NULL: any tokenizer will do. Errors of source_open().
Status validation_open(Validation *out, const Config *config, int vocab_size,
                       const char *tokenizer_sha256);

// The loss of one part of a sum, in nats.
typedef Status LossOfPart(double *loss_sum, void *context, int64_t part);

// Sums the losses of n_parts parts. The ranks take parts in turn; all get the sum, with the same
// bits for any number of ranks. STOPPED if a stop is requested meanwhile. windows_per_part is what
// progress counts in. Collective.
Status validation_sum_parts(double *loss_sum, int64_t n_parts, int windows_per_part,
                            const Comm *comm, LossOfPart *loss_of, void *context);

// Sums the losses of the first n_windows of a source over their targets, in nats; a part is a
// batch. Collective.
Status validation_sum(double *loss_sum, Source *source, int64_t n_windows, const Comm *comm,
                      Workspace *ws, Batch *batch, const Model *model);

// Mean loss, nats per token. FAILED if it is not finite. Collective.
Status validation_loss(double *out, const Validation *validation, const Comm *comm, Workspace *ws,
                       Batch *batch, const Model *model);

// The same for a model that is not being trained, such as the original before its conversion:
// allocates and frees the memory for it. Products in train.compute. NaN if no validation is
// configured. Collective.
Status validation_measure(double *out, const Config *config, const Comm *comm, const Model *model,
                          const char *tokenizer_sha256);

void validation_close(Validation *validation);

#endif
