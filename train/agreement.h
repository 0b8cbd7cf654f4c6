// Each part of what all ranks of a job must have the same (train/parallel/contract.h), as a list
// that is made where the part is read. Paths are not compared, what lies there is: machines may
// have copies of their own.
//
//     TRY(agreement_config(comm, &config, status));       // as soon as it is loaded
//     TRY(agreement_model(comm, "/models/SmolLM-135M"));  // before weights are loaded
//     TRY(agreement_data(comm, &config, vocab_size, tokenizer_sha256));
//
// BAD_INPUT on all ranks with the first difference; the error of the first rank that cannot read
// its files. All are collective.
#ifndef MHA2MLA_TRAIN_AGREEMENT_H
#define MHA2MLA_TRAIN_AGREEMENT_H

#include "train/config/config.h"
#include "train/parallel/comm.h"

#include <jansson.h>

// Every key of a config, of paths only whether they are given. `own` is how this rank's was loaded;
// it need not be valid otherwise.
Status agreement_config(const Comm *comm, const Config *config, Status own);

// The shapes of a model before and after its conversion. `own`: how this rank's were found.
Status agreement_shapes(const Comm *comm, const ModelShape *original, const ModelShape *converted,
                        Status own);

// A Hugging Face directory: shape, tensors and their contents (model/hf/hf_fingerprint.h), and the
// tokenizer.
Status agreement_model(const Comm *comm, const char *dir);

// The SHA-256 of a file, or of a tokenizer. `name` is the key in the text.
Status agreement_file(const Comm *comm, const char *name, const char *path);
Status agreement_tokenizer(const Comm *comm, const char *sha256, Status own);

// The training data and the validation shards of a config, opened for it: tokens and content of
// every shard (data/mixture.h). tokenizer_sha256 as for mixture_open().
Status agreement_data(const Comm *comm, const Config *config, int vocab_size,
                      const char *tokenizer_sha256);

// Data that a command has opened itself: what source_fingerprint() or mixture_fingerprint() gave,
// which is released; NULL after an error, which `own` is.
Status agreement_fingerprint(const Comm *comm, json_t *fingerprint, Status own);

#endif
