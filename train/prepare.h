// The model a run trains: loaded or random, calibrated, converted - on all ranks alike.
#ifndef MHA2MLA_TRAIN_PREPARE_H
#define MHA2MLA_TRAIN_PREPARE_H

#include "base/checksum.h"
#include "model/model.h"
#include "train/comm.h"
#include "train/config.h"

// SHA-256 of the tokenizer in the config's model (or init.tokenizer) directory, "" if it has none.
Status prepare_tokenizer_sha256(char out[SHA256_HEX_BYTES], const Config *config);

// The model before conversion: hf_load or random weights. Collective.
Status prepare_original(Model *out, const Config *config, const Comm *comm);

// Chooses RoPE pairs (with a calibration pass if the strategy wants one) and factorizes, layers
// spread over ranks. Releases *model and puts the converted one in its place. Collective.
Status prepare_converted(Model *model, const Config *config, const Comm *comm,
                         const char *tokenizer_sha256);

#endif
