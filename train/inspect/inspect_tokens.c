// Shards and Nanosets share what can be said of both: counts, the first tokens, their text. Shards
// also have checksums; of a Nanoset only the range of its ids can be checked.
#include "train/inspect/inspect.h"

#include "data/shards/nanoset.h"
#include "data/shards/shard.h"
#include "data/shards/token_file.h"
#include "data/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// VERIFY_TOKENS: ids read at a time, 256 KiB.
enum { FIRST_TOKENS = 24, LINE_TOKENS = 12, VERIFY_TOKENS = 1 << 16 };

// A file without document boundaries has 0 of them, hence no average.
static void print_counts(int64_t n_tokens, int64_t n_documents)
{
    inspect_label("tokens");
    printf("%lld (%.2f M)\n", (long long)n_tokens, (double)n_tokens / 1e6);
    inspect_label("documents");
    printf("%lld", (long long)n_documents);
    if (n_documents > 0)
        printf(", %.1f tokens on average", (double)n_tokens / (double)n_documents);
    printf("\n");
}

// On one line of the terminal, as a C string literal: control characters in a text must not act on
// the terminal. Bytes from 0x80 up are UTF-8 and printed as they are.
static void print_quoted(const char *text, int64_t size_bytes)
{
    putchar('"');
    for (int64_t i = 0; i < size_bytes; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c == '\n')
            printf("\\n");
        else if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < ' ' || c == 0x7f)
            printf("\\x%02x", c);
        else
            putchar(c);
    }
    putchar('"');
}

// Special tokens are shown as they are written, so that documents can be told apart.
static Status print_text(const Tokenizer *tokenizer, const int32_t *ids, int64_t n)
{
    char *text;
    int64_t size_bytes;
    TRY(tokenizer_decode(tokenizer, ids, n, &text, &size_bytes, false));
    inspect_label("text");
    print_quoted(text, size_bytes);
    printf("\n");
    free(text);
    return OK;
}

// The first ids and, with a tokenizer, their text.
static Status print_first(TokenFile *file, const Tokenizer *tokenizer)
{
    int32_t ids[FIRST_TOKENS];
    const int64_t n_tokens = token_file_info(file)->n_tokens;
    const int64_t n = n_tokens < FIRST_TOKENS ? n_tokens : FIRST_TOKENS;
    TRY(token_file_read(file, 0, n, ids));
    for (int64_t i = 0; i < n; i++) {
        if (i % LINE_TOKENS == 0)
            inspect_label(i == 0 ? "first" : "");
        printf("%d%s", (int)ids[i], i + 1 == n || (i + 1) % LINE_TOKENS == 0 ? "\n" : " ");
    }
    return tokenizer != NULL ? print_text(tokenizer, ids, n) : OK;
}

// Loads the tokenizer, if one is wanted; it must be the file's own where that names one.
static Status load_tokenizer(Tokenizer **out, const TokenFileInfo *info, const char *dir)
{
    *out = NULL;
    if (dir == NULL)
        return OK;
    Tokenizer *tokenizer;
    TRY(tokenizer_load(&tokenizer, dir));
    const char *own = tokenizer_sha256(tokenizer);
    if (info->tokenizer_sha256[0] != '\0' && strcmp(info->tokenizer_sha256, own) != 0) {
        const Status status =
            fail(BAD_INPUT, "%s: made with tokenizer %.12s, the one in %s is %.12s", info->path,
                 info->tokenizer_sha256, dir, own);
        tokenizer_release(tokenizer);
        return status;
    }
    *out = tokenizer;
    return OK;
}

// The tokenizer is loaded here, after the header was shown, as loading may fail on its own.
static Status inspect_first(TokenFile *file, const InspectTokens *options)
{
    Tokenizer *tokenizer;
    TRY(load_tokenizer(&tokenizer, token_file_info(file), options->tokenizer_dir));
    const Status status = print_first(file, tokenizer);
    tokenizer_release(tokenizer);
    return status;
}

// HDF5 checks each chunk's Fletcher-32 when it is read, so verifying is reading.
static Status verify_shard(const char *path)
{
    Shard *shard;
    int64_t n_chunks = 0;
    TRY(shard_open(&shard, path));
    const bool has_crc32 = shard_info(shard)->tokens_crc32 >= 0;
    const Status status = shard_verify(shard, &n_chunks);
    shard_close(shard);
    TRY(status);
    inspect_label("checksums");
    printf("right in all %lld chunks%s\n", (long long)n_chunks,
           has_crc32 ? " and over all tokens" : "; an older shard, none over all tokens");
    return OK;
}

// The header only: opening checks its attributes, not the chunks.
static Status print_shard(const char *path)
{
    Shard *shard;
    TRY(shard_open(&shard, path));
    const ShardInfo info = *shard_info(shard);
    shard_close(shard);
    printf("%s: token shard\n", path);
    print_counts(info.n_tokens, info.n_documents);
    inspect_label("vocabulary");
    printf("%d\n", info.vocab_size);
    inspect_label("document end");
    if (info.eos_id >= 0)
        printf("token %d\n", info.eos_id);
    else
        printf("no token of its own\n");
    inspect_label("tokenizer");
    printf("sha256 %s\n", info.tokenizer_sha256);
    inspect_label("source");
    printf("%s\n", info.source);
    return OK;
}

// The file is opened a second time as a TokenFile: from there on shards and Nanosets are shown by
// the same code.
Status inspect_shard(const char *path, const InspectTokens *options)
{
    TokenFile *file;
    TRY(print_shard(path));
    TRY(token_file_open(&file, path));
    const Status status = inspect_first(file, options);
    token_file_close(file);
    TRY(status);
    if (options->verify)
        return verify_shard(path);
    inspect_label("checksums");
    printf("of what is shown here are right; --verify reads the rest\n");
    return OK;
}

// There is no checksum: what can be checked is that every id is a token of the tokenizer.
static Status verify_nanoset(Nanoset *nanoset, const char *tokenizer_dir)
{
    Tokenizer *tokenizer = NULL;
    int32_t *ids = malloc(VERIFY_TOKENS * sizeof *ids), highest = 0;
    if (ids == NULL)
        return fail(FAILED, "%s: out of memory", nanoset_path(nanoset));
    Status status = tokenizer_dir != NULL ? tokenizer_load(&tokenizer, tokenizer_dir) : OK;
    // Without a tokenizer every id that fits is allowed.
    const int32_t vocab_size = tokenizer != NULL ? tokenizer_vocab_size(tokenizer) : INT32_MAX;
    const int64_t n = nanoset_n_tokens(nanoset);
    for (int64_t first = 0; first < n && status == OK; first += VERIFY_TOKENS) {
        const int64_t count = n - first < VERIFY_TOKENS ? n - first : VERIFY_TOKENS;
        status = nanoset_read(nanoset, first, count, ids);
        for (int64_t i = 0; i < count && status == OK; i++) {
            highest = ids[i] > highest ? ids[i] : highest;
            if (ids[i] >= vocab_size)
                status = fail(BAD_INPUT, "%s: token %lld is %d, the vocabulary of %s has %d",
                              nanoset_path(nanoset), (long long)(first + i), (int)ids[i],
                              tokenizer_dir, (int)vocab_size);
        }
    }
    tokenizer_release(tokenizer);
    free(ids);
    TRY(status);
    inspect_label("checked");
    printf("all tokens can be read, the highest id is %d\n", (int)highest);
    return OK;
}

static Status print_nanoset(const char *path, const InspectTokens *options)
{
    Nanoset *nanoset;
    TRY(nanoset_open(&nanoset, path));
    printf("%s: Nanoset, ids of %d bytes\n", path, nanoset_token_bytes(nanoset));
    print_counts(nanoset_n_tokens(nanoset), nanoset_n_documents(nanoset));
    const Status status = options->verify ? verify_nanoset(nanoset, options->tokenizer_dir) : OK;
    nanoset_close(nanoset);
    return status;
}

// A Nanoset is ids alone, without a header: what it was made with cannot be known.
Status inspect_nanoset(const char *path, const InspectTokens *options)
{
    TokenFile *file;
    TRY(print_nanoset(path, options));
    inspect_label("tokenizer");
    printf("not named in the file, and no checksums\n");
    TRY(token_file_open(&file, path));
    const Status status = inspect_first(file, options);
    token_file_close(file);
    return status;
}
