// Two kinds of file behind one handle. The kind follows from the name, since a Nanoset has no
// header that would tell it from any other bytes.
#include "data/shards/token_file.h"

#include "data/shards/nanoset.h"
#include "data/shards/shard.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

struct TokenFile {
    Shard *shard;     // owned; NULL for a Nanoset
    Nanoset *nanoset; // owned; NULL for a shard
    TokenFileInfo info;
};

// The suffix alone decides, so that a damaged file is reported by the reader of its kind.
static bool is_nanoset(const char *path)
{
    const size_t length = strlen(path);
    return length >= 3 && strcmp(path + length - 3, ".ds") == 0;
}

static Status open_nanoset(TokenFile *file, const char *path)
{
    TRY(nanoset_open(&file->nanoset, path));
    file->info.path = nanoset_path(file->nanoset);
    file->info.n_tokens = nanoset_n_tokens(file->nanoset);
    file->info.n_documents = nanoset_n_documents(file->nanoset);
    file->info.documents_crc32 = nanoset_documents_crc32(file->nanoset);
    file->info.tokens_crc32 = -1;
    return OK;
}

static Status open_shard(TokenFile *file, const char *path)
{
    TRY(shard_open(&file->shard, path));
    const ShardInfo *info = shard_info(file->shard);
    file->info.path = shard_path(file->shard);
    file->info.n_tokens = info->n_tokens;
    file->info.n_documents = info->n_documents;
    file->info.documents_crc32 = info->documents_crc32;
    file->info.tokens_crc32 = info->tokens_crc32;
    memcpy(file->info.tokenizer_sha256, info->tokenizer_sha256, SHA256_HEX_BYTES);
    return OK;
}

// Both readers own their path; info borrows it.
Status token_file_open(TokenFile **out, const char *path)
{
    TokenFile *file = calloc(1, sizeof *file);
    if (file == NULL)
        return fail(FAILED, "%s: out of memory", path);
    // Exactly one of the two handles is set.
    const Status status = is_nanoset(path) ? open_nanoset(file, path) : open_shard(file, path);
    if (status == OK)
        *out = file;
    else
        free(file);
    return status;
}

const TokenFileInfo *token_file_info(const TokenFile *file)
{
    return &file->info;
}

Status token_file_read(TokenFile *file, int64_t first, int64_t count, int32_t *out)
{
    return file->nanoset != NULL ? nanoset_read(file->nanoset, first, count, out)
                                 : shard_read(file->shard, first, count, out);
}

Status token_file_sample_crc32(uint32_t *out, TokenFile *file)
{
    // Eight random reads cost milliseconds per file where reading all would cost minutes per run.
    enum { N_PLACES = 8, PLACE_TOKENS = 64 };
    const int64_t n = file->info.n_tokens;
    const int64_t count = n < PLACE_TOKENS ? n : PLACE_TOKENS;
    uLong crc = crc32(0, NULL, 0);
    for (int64_t place = 0; place < N_PLACES; place++) {
        int32_t tokens[PLACE_TOKENS];
        const int64_t step = (n - count) / (N_PLACES - 1);
        const int64_t first = place == N_PLACES - 1 ? n - count : place * step; // the last: the end
        TRY(token_file_read(file, first, count, tokens));
        crc = crc32(crc, (const Bytef *)tokens, (uInt)((size_t)count * sizeof *tokens));
    }
    *out = (uint32_t)crc;
    return OK;
}

Status token_file_tokens_crc32(int64_t *out, TokenFile *file)
{
    // 4 Mi tokens take some 30 ms to read; each rank opens the files of a run a few times.
    enum { WHOLE_TOKENS = 1 << 22, BLOCK_TOKENS = 8192 };
    const int64_t n = file->info.n_tokens;
    *out = file->info.tokens_crc32;
    if (n > WHOLE_TOKENS)
        return OK;
    int32_t tokens[BLOCK_TOKENS];
    uLong crc = crc32(0, NULL, 0);
    for (int64_t first = 0; first < n; first += BLOCK_TOKENS) {
        const int64_t count = n - first < BLOCK_TOKENS ? n - first : BLOCK_TOKENS;
        if (token_file_read(file, first, count, tokens) != OK)
            return OK; // damage is told where the tokens are used
        crc = crc32(crc, (const Bytef *)tokens, (uInt)((size_t)count * sizeof *tokens));
    }
    if (*out >= 0 && *out != (int64_t)crc)
        return fail(
            BAD_INPUT,
            "%s: its tokens were changed after it was made: their CRC-32 is %08lx, the file "
            "says %08llx; tokenize it again",
            file->info.path, crc, (unsigned long long)*out);
    *out = (int64_t)crc;
    return OK;
}

void token_file_close(TokenFile *file)
{
    if (file == NULL)
        return;
    shard_close(file->shard);
    nanoset_close(file->nanoset);
    free(file);
}
