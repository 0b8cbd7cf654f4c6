// config.json of DeepSeek's format, behind model/deepseek/deepseek.h.
#ifndef MHA2MLA_MODEL_DEEPSEEK_DEEPSEEK_CONFIG_H
#define MHA2MLA_MODEL_DEEPSEEK_DEEPSEEK_CONFIG_H

#include "model/deepseek/deepseek.h"

// The caller owns *out. Token ids are taken from base_dir's config.json, if base_dir is not NULL.
Status deepseek_config_make(json_t **out, const Deepseek *deepseek, const char *base_dir,
                            DType dtype);

#endif
