// Which tokens begin, end and fill up a text, in every file of a saved model that other programs
// look for them in.
//
//     TRY(special_tokens_write(config, "out/", shape.max_positions));  // out/ has a tokenizer
//     TRY(json_write(config, "out/config.json"));
#ifndef MHA2MLA_MODEL_HF_SPECIAL_TOKENS_H
#define MHA2MLA_MODEL_HF_SPECIAL_TOKENS_H

#include "base/json.h"

#include <stdint.h>

// Puts bos_token_id and eos_token_id where they are missing: into `config`,
// DIR/generation_config.json and, by their text, DIR/tokenizer_config.json. They come from the
// first that has them: generation_config.json, `config`, the text in tokenizer_config.json or
// special_tokens_map.json, an added token of the usual text. Without any, `config` gets null, since
// transformers takes 1 and 2 where the key is missing. Files that are not what they should be are
// left as they are.
Status special_tokens_write(json_t *config, const char *dir, int max_positions);

typedef enum SpecialKind { SPECIAL_BOS, SPECIAL_EOS, SPECIAL_PAD, N_SPECIAL } SpecialKind;

// The ids in the same way, from what is in `dir` alone; -1: nothing says it. Of a list the first.
void special_tokens_find(int32_t ids[N_SPECIAL], const char *dir);

#endif
