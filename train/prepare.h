// The model that a run trains: loaded or random, calibrated, converted; the same on all ranks.
//
//     int32_t *pairs;
//     TRY(prepare_original(&original, &config, &comm, &group));
//     TRY(prepare_pairs(&pairs, &original.model, &shape, &config, &comm, tokenizer_sha256));
//     replica_release(&original);               // two models need not fit into memory
//     TRY(prepare_converted(&replica, pairs, &config, &comm, &group));
#ifndef MHA2MLA_TRAIN_PREPARE_H
#define MHA2MLA_TRAIN_PREPARE_H

#include "base/checksum.h"
#include "train/config/config.h"
#include "train/replica.h"

// SHA-256 of the tokenizer in the config's model (or init.tokenizer) directory, "" if it has none.
Status prepare_tokenizer_sha256(char out[SHA256_HEX_BYTES], const Config *config);

// The model before conversion: from its files or random. Collective.
Status prepare_original(Replica *out, const Config *config, const Comm *comm, CommGroup *group);

// Chooses which RoPE pairs are kept: [L, K, P] of each KV head or, in the shared form, slots [L, P]
// (model/convert/slots.h), freed by the caller. `original` is read
// by the calibration pass alone; without one (config_calibrates()) it may be NULL. STOPPED as
// calibrate_run(). Collective.
Status prepare_pairs(int32_t **out, const Model *original, const ModelShape *original_shape,
                     const Config *config, const Comm *comm, const char *tokenizer_sha256);

// The converted model, made layer by layer from the original's files or seed. The original need not
// be in memory, and should not be. Collective.
Status prepare_converted(Replica *out, const int32_t *pairs, const Config *config, const Comm *comm,
                         CommGroup *group);

// Fills a converted model from its original by the recipe and the choice of pairs or slots: each
// rank converts some of the layers, all get the same bits. Recipes that need statistics read them
// from the file `scores`. Collective.
Status prepare_layers(Replica *mla, const WeightSource *original, const ConvertRecipe *recipe,
                      const int32_t *choice, const char *scores);

// Such a choice for the converted shape `mla` by a strategy: `scores` is the file that 2-norm and
// kl choose from, unused by the others. For recipes that absorb what the lost pairs leave, kl
// counts on it. Not collective.
Status prepare_chosen_pairs(int32_t *choice, const ModelShape *mla, RopeStrategy strategy,
                            const ConvertRecipe *recipe, const char *scores);

// The original in the directory, in memory that the ranks of a host share. Collective.
Status prepare_loaded(Replica *out, const char *dir, const Comm *comm, CommGroup *group);

#endif
