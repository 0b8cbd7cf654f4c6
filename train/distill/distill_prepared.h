// The distillation of a run, between conversion and training: by the config's block `distill`, on
// the beginnings of the first samples of its training data.
//
//     if (config_distills(&config))
//         TRY(distill_prepared(&mla, &config, &comm, &group, tokenizer_sha256, run_dir));
#ifndef MHA2MLA_TRAIN_DISTILL_DISTILL_PREPARED_H
#define MHA2MLA_TRAIN_DISTILL_DISTILL_PREPARED_H

#include "base/file.h"
#include "train/config/config.h"
#include "train/replica.h"

// RUN/distill, where finished layers are kept.
Status distill_dir(char out[PATH_BYTES], const char *run_dir);

// Loads the original beside `mla`. Errors of mixture_open(), prepare_original() and distill_run().
// Collective.
Status distill_prepared(Replica *mla, const Config *config, const Comm *comm, CommGroup *group,
                        const char *tokenizer_sha256, const char *run_dir);

#endif
