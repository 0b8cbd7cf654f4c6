// The model a run trains: loaded or random, calibrated, converted - on all ranks alike.
#ifndef MHA2MLA_TRAIN_PREPARE_H
#define MHA2MLA_TRAIN_PREPARE_H

#include "base/checksum.h"
#include "train/config/config.h"
#include "train/replica.h"

// SHA-256 of the tokenizer in the config's model (or init.tokenizer) directory, "" if it has none.
Status prepare_tokenizer_sha256(char out[SHA256_HEX_BYTES], const Config *config);

// The model before conversion: from its files or random. Collective.
Status prepare_original(Replica *out, const Config *config, const Comm *comm, CommGroup *group);

// Chooses which RoPE pairs each KV head keeps: [L, K, P], the caller frees them. `original` is
// read for the calibration pass, and may be NULL if the config asks for none (config_calibrates()).
// Collective.
Status prepare_pairs(int32_t **out, const Model *original, const ModelShape *original_shape,
                     const Config *config, const Comm *comm, const char *tokenizer_sha256);

// The converted model, of the original's files or seed: that one need not be in memory, and should
// not, as there would be two. Collective.
Status prepare_converted(Replica *out, const int32_t *pairs, const Config *config, const Comm *comm,
                         CommGroup *group);

// Fills a converted model from its original, layers spread over ranks; all get the same bits.
// Collective.
Status prepare_layers(Replica *mla, const WeightSource *original);

#endif
