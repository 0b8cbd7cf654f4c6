// The keys of config.json that do not make the shape: which change nothing here, and which name a
// computation that this program does not do. Behind model/hf/hf_config.c.
//
//     TRY(hf_config_keys_check(config, architecture, path)); // refuses by name and value
//     hf_config_keys_warn(config, &shape, dir);      // once, when the weights are loaded
#ifndef MHA2MLA_MODEL_HF_HF_CONFIG_KEYS_H
#define MHA2MLA_MODEL_HF_HF_CONFIG_KEYS_H

#include "base/json.h"
#include "model/hf/architecture.h"
#include "model/shape.h"

// BAD_INPUT with key and value: "PATH: 'mlp_bias' is true, supported is a model without it".
Status hf_config_refuse(const json_t *config, const char *where, const char *key,
                        const char *supported);

// BAD_INPUT for the first key whose value asks for another computation than the architecture's;
// `where` names the file.
Status hf_config_keys_check(const json_t *config, const Architecture *architecture,
                            const char *where);

// Warns of keys that are not known, also inside the object of RoPE, and of token ids that are
// outside of the vocabulary, or of the tokenizer that lies in `dir` beside config.json.
void hf_config_keys_warn(const json_t *config, const ModelShape *shape, const char *dir);

#endif
