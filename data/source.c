#include "data/source.h"

#include "data/paths.h"
#include "data/shard.h"

#include <stdlib.h>
#include <string.h>

typedef struct SourceShard {
    Shard *shard;         // owned
    int64_t first_sample; // of the source that lies in this shard
} SourceShard;

struct Source {
    int seq_len, vocab_size;
    int64_t n_samples;
    int n_shards;
    SourceShard *shards; // owned
};

// A shard's last token is only a target, so T + 1 tokens hold one sample and 2 T + 1 two.
static int64_t samples_in(const ShardInfo *info, int seq_len)
{
    return info->n_tokens > 0 ? (info->n_tokens - 1) / seq_len : 0;
}

static Status check_tokenizer(const char *path, const ShardInfo *info, const char *sha256)
{
    if (sha256 == NULL || strcmp(info->tokenizer_sha256, sha256) == 0)
        return OK;
    return fail(BAD_INPUT,
                "%s: made with tokenizer %.12s, the model (or the first shard) has %.12s; "
                "tokenize it again",
                path, info->tokenizer_sha256, sha256);
}

static Status append_shard(Source *source, const char *path, const char *sha256)
{
    Shard *shard;
    TRY(shard_open(&shard, path));
    const ShardInfo *info = shard_info(shard);
    // Without a tokenizer to compare with, the first shard sets it.
    if (sha256 == NULL && source->n_shards > 0)
        sha256 = shard_info(source->shards[0].shard)->tokenizer_sha256;
    Status status;
    TRY_GOTO(close_shard, check_tokenizer(path, info, sha256));
    SourceShard *shards =
        realloc(source->shards, (size_t)(source->n_shards + 1) * sizeof *source->shards);
    if (shards == NULL) {
        status = fail(FAILED, "%s: no memory for one more shard", path);
        goto close_shard;
    }
    source->shards = shards;
    shards[source->n_shards++] = (SourceShard){shard, source->n_samples};
    source->n_samples += samples_in(info, source->seq_len);
    return OK;
close_shard:
    shard_close(shard);
    return status;
}

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
        fail_write_prefix("source %s", name);
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
    source = NULL;
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
        shard_close(source->shards[i].shard);
    free(source->shards);
    free(source);
}

int64_t source_n_samples(const Source *source)
{
    return source->n_samples;
}

const char *source_tokenizer_sha256(const Source *source)
{
    return shard_info(source->shards[0].shard)->tokenizer_sha256;
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
    int64_t first = (index - at->first_sample) * source->seq_len;
    TRY(shard_read(at->shard, first, source->seq_len + 1, tokens));
    // A tokenizer may know more tokens than the model embeds; that matters only where they occur.
    for (int i = 0; i <= source->seq_len; i++)
        if (tokens[i] >= source->vocab_size)
            return fail(BAD_INPUT,
                        "%s: token %lld is %d, the model's vocabulary has %d; tokenize the text "
                        "with the model's own tokenizer",
                        shard_path(at->shard), (long long)(first + i), (int)tokens[i],
                        source->vocab_size);
    return OK;
}
