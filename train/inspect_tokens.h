// What `mha2mla inspect` prints about files of tokens: counts, tokenizer, the first tokens, and
// whether the checksums hold.
//
//     TRY(inspect_shard("web.h5", &(InspectTokens){.tokenizer_dir = dir, .verify = true}));
#ifndef MHA2MLA_TRAIN_INSPECT_TOKENS_H
#define MHA2MLA_TRAIN_INSPECT_TOKENS_H

#include "base/status.h"

typedef struct InspectTokens {
    const char *tokenizer_dir; // NULL: the first tokens are shown as ids only
    bool verify;               // read everything
} InspectTokens;

// BAD_INPUT: not such a file, damaged (naming the chunk), or made with another tokenizer.
Status inspect_shard(const char *path, const InspectTokens *options);
Status inspect_nanoset(const char *path, const InspectTokens *options);

#endif
