// A sample's place is found by bisection over the shards' first samples, so a source of thousands
// of shards costs a read no more than one of a few.
#include "data/shards/source.h"

#include "base/log.h"
#include "base/paths.h"
#include "data/shards/token_file.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct SourceShard {
    TokenFile *file;       // owned
    int64_t first_sample;  // the index in the source of the shard's first sample
    uint32_t sample_crc32; // over some of its tokens
    int64_t tokens_crc32;  // over all of them; -1: not known
} SourceShard;

struct Source {
    int seq_len, vocab_size;
    char tokenizer_sha256[SHA256_HEX_BYTES]; // from the first shard that names one, or ""
    int64_t n_samples;
    int n_shards;
    SourceShard *shards; // owned
};

// A shard's last token is only a target, so T + 1 tokens hold one sample and 2 T + 1 two.
static int64_t samples_in(const TokenFileInfo *info, int seq_len)
{
    return info->n_tokens > 0 ? (info->n_tokens - 1) / seq_len : 0;
}

// Once per process: a run opens the same files for several purposes.
static void warn_of_unknown_tokenizer(const char *path)
{
    static bool warned = false;
    if (!warned)
        log_warn("%s: a Nanoset does not say which tokenizer made it; be sure that it is the "
                 "model's (only ids beyond the vocabulary are noticed)",
                 path);
    warned = true;
}

static void warn_of_unknown_content(const char *path)
{
    static bool warned = false;
    if (!warned)
        log_warn("%s: has no checksum of its tokens (a Nanoset, or a shard of an older version): "
                 "whether it is the same file when the run resumes is seen from samples only",
                 path);
    warned = true;
}

static Status check_tokenizer(Source *source, const TokenFileInfo *info, const char *sha256)
{
    if (info->tokenizer_sha256[0] == '\0') {
        warn_of_unknown_tokenizer(info->path);
        return OK;
    }
    // Without a tokenizer to compare with, the first shard sets it.
    if (sha256 == NULL && source->tokenizer_sha256[0] != '\0')
        sha256 = source->tokenizer_sha256;
    if (sha256 != NULL && strcmp(info->tokenizer_sha256, sha256) != 0)
        return fail(BAD_INPUT,
                    "%s: made with tokenizer %.12s, the model (or the first shard) has %.12s; "
                    "tokenize it again",
                    info->path, info->tokenizer_sha256, sha256);
    memcpy(source->tokenizer_sha256, info->tokenizer_sha256, SHA256_HEX_BYTES);
    return OK;
}

// Opens one more shard. All of them stay open: an epoch's order jumps between them with every
// sample.
static Status append_shard(Source *source, const char *path, const char *sha256)
{
    TokenFile *file;
    TRY(token_file_open(&file, path));
    const TokenFileInfo *info = token_file_info(file);
    Status status;
    uint32_t sample_crc32;
    int64_t tokens_crc32;
    TRY_GOTO(close_shard, check_tokenizer(source, info, sha256));
    TRY_GOTO(close_shard, token_file_sample_crc32(&sample_crc32, file));
    TRY_GOTO(close_shard, token_file_tokens_crc32(&tokens_crc32, file));
    if (tokens_crc32 < 0)
        warn_of_unknown_content(path);
    SourceShard *shards =
        realloc(source->shards, (size_t)(source->n_shards + 1) * sizeof *source->shards);
    if (shards == NULL) {
        status = fail(FAILED, "%s: no memory for one more shard", path);
        goto close_shard;
    }
    // Grown by one: a list of shards is hundreds long at most, and each costs opening a file
    // anyway.
    source->shards = shards;
    shards[source->n_shards++] = (SourceShard){file, source->n_samples, sample_crc32, tokens_crc32};
    source->n_samples += samples_in(info, source->seq_len);
    return OK;
close_shard:
    token_file_close(file);
    return status;
}

// One shard after another: the first that is damaged or of another tokenizer ends it.
Status source_open(Source **out, const char *name, char *const *patterns, int n_patterns,
                   int seq_len, const char *tokenizer_sha256, int vocab_size)
{
    Source *source = calloc(1, sizeof *source);
    if (source == NULL)
        return fail(FAILED, "source %s: no memory", name);
    source->seq_len = seq_len;
    source->vocab_size = vocab_size;
    Status status;
    PathList list = {0};
    status = paths_expand(&list, patterns, n_patterns);
    if (status != OK) {
        fail_write_prefix("source %s", name); // the config has many patterns
        goto close_source;
    }
    for (int i = 0; i < list.count; i++)
        TRY_GOTO(close_source, append_shard(source, list.paths[i], tokenizer_sha256));
    if (source->n_samples == 0) {
        status = fail(BAD_INPUT,
                      "source %s: no shard of '%s' holds %d tokens, one sample; "
                      "use longer texts or a smaller seq_len",
                      name, n_patterns > 0 ? patterns[0] : "", seq_len + 1);
        goto close_source;
    }
    *out = source;
    source = NULL; // the caller's now: what follows closes nothing
close_source:
    paths_release(&list);
    source_close(source);
    return status;
}

void source_close(Source *source)
{
    if (source == NULL)
        return;
    for (int i = 0; i < source->n_shards; i++)
        token_file_close(source->shards[i].file);
    free(source->shards);
    free(source);
}

// Fixed after opening; read without a lock from any thread.
int64_t source_n_samples(const Source *source)
{
    return source->n_samples;
}

const char *source_tokenizer_sha256(const Source *source)
{
    return source->tokenizer_sha256;
}

// jansson refuses strings that are not UTF-8, which a file's name may be: every byte of it beyond
// ASCII then becomes '?'. The name serves to recognize a shard, its content is compared apart.
static json_t *file_name(const char *name)
{
    json_t *value = json_string(name);
    if (value != NULL)
        return value;
    char ascii[NAME_MAX + 1];
    snprintf(ascii, sizeof ascii, "%s", name);
    for (char *c = ascii; *c != '\0'; c++) {
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    }
    return json_string(ascii);
}

// [{file, tokens, content}], "content" from two CRC-32: where documents end, and some of the
// tokens.
json_t *source_fingerprint(const Source *source)
{
    json_t *list = json_array();
    for (int i = 0; i < source->n_shards && list != NULL; i++) {
        const SourceShard *shard = &source->shards[i];
        const TokenFileInfo *info = token_file_info(shard->file);
        // Without the folder: data may move, and its content is what counts.
        const char *slash = strrchr(info->path, '/');
        char content[32];
        snprintf(content, sizeof content, "%08x-%08x", (unsigned)info->documents_crc32,
                 (unsigned)shard->sample_crc32);
        json_t *entry =
            json_pack("{s:o, s:I, s:s}", "file", file_name(slash == NULL ? info->path : slash + 1),
                      "tokens", (json_int_t)info->n_tokens, "content", content);
        if (shard->tokens_crc32 >= 0)
            json_object_set_new(entry, "tokens_crc32", json_integer(shard->tokens_crc32));
        if (entry == NULL || json_array_append_new(list, entry) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

Status source_read(Source *source, int64_t index, int32_t *tokens)
{
    CHECK(index >= 0 && index < source->n_samples, "sample %lld of %lld", (long long)index,
          (long long)source->n_samples);
    int low = 0, high = source->n_shards - 1; // the last shard that starts at or before `index`
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (source->shards[middle].first_sample <= index)
            low = middle;
        else
            high = middle - 1;
    }
    const SourceShard *at = &source->shards[low];
    // Consecutive samples share one token: the last target of one is the first input of the next.
    int64_t first = (index - at->first_sample) * source->seq_len;
    TRY(token_file_read(at->file, first, source->seq_len + 1, tokens));
    // A tokenizer may know more tokens than the model embeds; that matters only where they occur.
    for (int i = 0; i <= source->seq_len; i++)
        if (tokens[i] >= source->vocab_size)
            return fail(BAD_INPUT,
                        "%s: token %lld is %d, the model's vocabulary has %d; tokenize the text "
                        "with the model's own tokenizer",
                        token_file_info(at->file)->path, (long long)(first + i), (int)tokens[i],
                        source->vocab_size);
    return OK;
}
