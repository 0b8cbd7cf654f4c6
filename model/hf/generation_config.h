// What a Hugging Face directory says about how answers begin and end: the tokens that end a text
// and the one that begins it.
#ifndef MHA2MLA_MODEL_HF_GENERATION_CONFIG_H
#define MHA2MLA_MODEL_HF_GENERATION_CONFIG_H

#include "base/status.h"

#include <stdint.h>

enum { MAX_END_IDS = 32 };

typedef struct GenerationConfig {
    int32_t end_ids[MAX_END_IDS]; // [n_end_ids]: each ends an answer
    int n_end_ids;
    int32_t begin_id; // -1: none is named
} GenerationConfig;

// eos_token_id (a number or a list of them) and bos_token_id of DIR/generation_config.json, each
// from config.json where that file is missing or does not say it, as in transformers; where neither
// says what ends a text, the tokenizer's eos_id does, if it is not -1. BAD_INPUT if an id is not
// below vocab_size.
Status generation_config_load(GenerationConfig *out, const char *dir, int vocab_size,
                              int32_t eos_id);

#endif
