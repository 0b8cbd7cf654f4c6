// The Python files by which transformers runs a converted model (trust_remote_code=True). They are
// model/hf/python/*.py, and part of the program.
#ifndef MHA2MLA_MODEL_HF_CUSTOM_CODE_H
#define MHA2MLA_MODEL_HF_CUSTOM_CODE_H

#include "base/status.h"

#include <jansson.h>

extern const char custom_code_architecture[]; // in config.json's "architectures"

// "auto_map" of config.json: the classes by their files; a new reference, NULL if memory is short.
json_t *custom_code_auto_map(void);

// Writes configuration_mha2mla.py and modeling_mha2mla.py into a directory.
Status custom_code_write(const char *dir);

// Removes them, as another model's that was saved there before.
Status custom_code_remove(const char *dir);

#endif
