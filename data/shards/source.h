// A source of tokens: a list of shards (.h5) or Nanosets (.ds) read as one row of samples.
//
//     Source *source;
//     TRY(source_open(&source, "validation", patterns, n_patterns, T, sha256, vocab_size));
//     TRY(source_read(source, j, tokens));   // T + 1 tokens
//     source_close(source);
//
// Sample j of a shard is its tokens [j T, j T + T], T + 1 of them: the last one is only a target,
// and is the first of the next sample. A sample does not cross from one shard into the next.
#ifndef MHA2MLA_DATA_SHARDS_SOURCE_H
#define MHA2MLA_DATA_SHARDS_SOURCE_H

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

typedef struct Source Source;

// Opens the shards of all patterns (paths or globs, expanded in sorted order); `name` is for
// messages. BAD_INPUT if a pattern matches nothing, a shard is damaged, was made with another
// tokenizer than tokenizer_sha256 (NULL: any, but the same for all), or all together hold no full
// sample. A Nanoset does not name its tokenizer: it is taken with a warning, once per process.
Status source_open(Source **out, const char *name, char *const *patterns, int n_patterns,
                   int seq_len, const char *tokenizer_sha256, int vocab_size);

int64_t source_n_samples(const Source *source);

// SHA-256 of the tokenizer its shards were made with, "" if none says; lives as long as the source.
const char *source_tokenizer_sha256(const Source *source);

// A list of what the shards are: file name without its folder, tokens, a checksum of where the
// documents lie and of a few hundred tokens, and that of all tokens where it is known
// (data/shards/token_file.h), taken when they were opened. The caller owns it; NULL
// without memory.
json_t *source_fingerprint(const Source *source);

// Reads sample `index` in 0..n-1 into tokens [seq_len + 1]. BAD_INPUT for a damaged chunk or a
// token that is not below vocab_size.
Status source_read(Source *source, int64_t index, int32_t *tokens);

void source_close(Source *source); // NULL is allowed

#endif
