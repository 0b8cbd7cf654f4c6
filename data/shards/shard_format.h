// What the writer and the reader of token shards agree on.
#ifndef MHA2MLA_DATA_SHARDS_SHARD_FORMAT_H
#define MHA2MLA_DATA_SHARDS_SHARD_FORMAT_H

#include <stdint.h>

#define SHARD_FORMAT "mha2mla-tokens"

enum {
    SHARD_VERSION = 1,
    // A random read of one sample inflates every chunk it touches: 8 Ki tokens cost little there
    // and compress nearly as well as large chunks.
    SHARD_CHUNK_TOKENS = 8192,
    SHARD_CHUNK_DOCUMENTS = 2048,
    SHARD_CHUNK_MAX = 1 << 22, // larger ones are refused: a chunk is inflated into memory
    SHARD_SMALL_VOCAB = 65536, // up to here ids are uint16
};

#endif
