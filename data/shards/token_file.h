// A file of tokens of either kind, behind one interface: token shards (NAME.h5,
// data/shards/shard.h) and Nanosets (NAME.ds, data/shards/nanoset.h).
//
//     TokenFile *file;
//     TRY(token_file_open(&file, path));
//     const TokenFileInfo *info = token_file_info(file);
//     TRY(token_file_read(file, first, count, ids));
//     token_file_close(file);
//
// A path that ends in .ds is a Nanoset, any other a shard. Errors are those of the two.
#ifndef MHA2MLA_DATA_SHARDS_TOKEN_FILE_H
#define MHA2MLA_DATA_SHARDS_TOKEN_FILE_H

#include "base/checksum.h"
#include "base/status.h"

#include <stdint.h>

typedef struct TokenFileInfo {
    const char *path; // borrowed from the file
    int64_t n_tokens, n_documents;
    uint32_t documents_crc32;                // over where the documents lie
    int64_t tokens_crc32;                    // over all ids, as the file says; -1: it does not
    char tokenizer_sha256[SHA256_HEX_BYTES]; // "" if the file does not say
} TokenFileInfo;

typedef struct TokenFile TokenFile;

Status token_file_open(TokenFile **out, const char *path);

const TokenFileInfo *token_file_info(const TokenFile *file); // borrowed

// Reads tokens first .. first + count - 1, which must be there, into out [count].
Status token_file_read(TokenFile *file, int64_t first, int64_t count, int32_t *out);

// A checksum of a few hundred tokens spread over the file: with the number of tokens and
// documents_crc32 it tells one text from another without reading all of it, the same however the
// file is compressed. Errors as for token_file_read().
Status token_file_sample_crc32(uint32_t *out, TokenFile *file);

// A checksum of all its tokens; -1: only the sample above is known. Files of a few million tokens
// are read for it; larger ones count on what they say of themselves. BAD_INPUT if a file that was
// read says otherwise: it was changed after it was made.
Status token_file_tokens_crc32(int64_t *out, TokenFile *file);

void token_file_close(TokenFile *file); // NULL is allowed

#endif
