// Token shards: the ids of many documents, one after another, in one HDF5 file.
//
//     ShardInfo info = {.vocab_size = 49152, .eos_id = 0, .source = "fineweb-edu-dedup"};
//     strcpy(info.tokenizer_sha256, tokenizer_sha256(tok));
//     ShardWriter *writer;
//     TRY(shard_create(&writer, "shards/fineweb.h5", &info));
//     TRY_GOTO(abandon, shard_append(writer, ids, n_ids));  // one document
//     TRY(shard_finish(writer));                            // or shard_abandon(writer)
//
//     Shard *shard;
//     TRY(shard_open(&shard, "shards/fineweb.h5"));
//     TRY(shard_read(shard, first, count, tokens));
//     shard_close(shard);
//
// The file: /tokens uint16, or uint32 if the vocabulary has more than 65536 ids; /documents uint64
// [n_documents + 1], where each document starts and the last one ends, never descending. Both
// chunked with shuffle, deflate and fletcher32. Attributes of the root: format "mha2mla-tokens",
// version 1, tokenizer_sha256, vocab_size, eos_id (-1: none), source (free text),
// tokens_crc32 (CRC-32 of all ids as little-endian uint32; shards of older versions have none).
//
// A writer fills a temporary file of its own (base/temporary.h) and renames it when all is on disk,
// so a killed one leaves nothing that looks finished, and of two writers of one path each renames a
// whole shard. Writer and reader hold a few MB whatever the size of the shard. One thread at a
// time per handle. Damage is BAD_INPUT naming the file and what is wrong, with HDF5's own reason;
// HDF5 prints nothing.
#ifndef MHA2MLA_DATA_SHARDS_SHARD_H
#define MHA2MLA_DATA_SHARDS_SHARD_H

#include "base/checksum.h"
#include "base/status.h"

#include <stdint.h>

enum { SHARD_SOURCE_BYTES = 1024 }; // with the closing zero; longer texts are cut

typedef struct ShardInfo {
    int64_t n_tokens;         // set by the reader
    int64_t n_documents;      // set by the reader
    uint32_t documents_crc32; // over the offsets of documents, set by the reader
    int64_t tokens_crc32; // over all ids, as the writer stored it; -1: not known. Set by the reader
    int vocab_size;       // every id is below it
    int eos_id;           // -1: documents do not end in a token of their own
    char tokenizer_sha256[SHA256_HEX_BYTES];
    char source[SHARD_SOURCE_BYTES]; // where the text came from
} ShardInfo;

typedef struct Shard Shard;
typedef struct ShardWriter ShardWriter;

// Starts a shard that will be at `path`; the counts in `info` are ignored. BAD_INPUT if the
// vocabulary, eos id or checksum is out of range, FAILED if no file can be made there.
Status shard_create(ShardWriter **out, const char *path, const ShardInfo *info);

// Appends one document of n_ids >= 0 tokens; one without tokens is left out. BAD_INPUT if an id is
// not in the vocabulary, FAILED if the disk is full. After an error only shard_abandon() is of use.
Status shard_append(ShardWriter *writer, const int32_t *ids, int64_t n_ids);

// Tokens and documents appended so far.
int64_t shard_writer_n_tokens(const ShardWriter *writer);
int64_t shard_writer_n_documents(const ShardWriter *writer);

// Writes the rest, syncs, renames and frees the writer, also on failure (then nothing is left
// behind). BAD_INPUT if no token was appended.
Status shard_finish(ShardWriter *writer);

// Frees the writer and removes the temporary file. NULL is allowed.
void shard_abandon(ShardWriter *writer);

// Opens a shard and checks its attributes, types, filters and document offsets. The tokens
// themselves are checked as they are read.
Status shard_open(Shard **out, const char *path);

const ShardInfo *shard_info(const Shard *shard); // borrowed, lives as long as the shard
const char *shard_path(const Shard *shard);      // borrowed, likewise
int64_t shard_chunk_tokens(const Shard *shard);  // what a read decodes at a time

// Reads tokens first .. first + count - 1 into out [count]. BAD_INPUT for a damaged chunk or an id
// outside the vocabulary; a range outside the shard is a broken invariant.
Status shard_read(Shard *shard, int64_t first, int64_t count, int32_t *out);

// Reads every chunk, also behind a damaged one; *n_chunks is how many there are. BAD_INPUT if any
// is damaged or holds an id outside the vocabulary: the text of the first, and how many are; or if
// the tokens together are not those of tokens_crc32.
Status shard_verify(Shard *shard, int64_t *n_chunks);

void shard_close(Shard *shard); // NULL is allowed

#endif
