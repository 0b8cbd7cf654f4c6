#include "data/source.h"

#include "data/shard.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>

typedef struct SourceShard {
    Shard *shard;         // owned
    int64_t first_sample; // of the source that lies in this shard
} SourceShard;

struct Source {
    int seq_len;
    int64_t n_samples;
    int n_shards;
    SourceShard *shards; // owned
};

// A shard's last token is only a target, so T + 1 tokens hold one sample and 2 T + 1 two.
static int64_t samples_in(const ShardInfo *info, int seq_len)
{
    return info->n_tokens > 0 ? (info->n_tokens - 1) / seq_len : 0;
}

static Status check_shard(const char *path, const ShardInfo *info, const char *sha256,
                          int vocab_size)
{
    if (sha256 != NULL && strcmp(info->tokenizer_sha256, sha256) != 0)
        return fail(BAD_INPUT,
                    "%s: made with tokenizer %.12s, the model (or the first shard) has %.12s; "
                    "tokenize it again",
                    path, info->tokenizer_sha256, sha256);
    if (info->vocab_size > vocab_size)
        return fail(BAD_INPUT, "%s: has a vocabulary of %d tokens, the model %d; tokenize it again",
                    path, info->vocab_size, vocab_size);
    return OK;
}

static Status append_shard(Source *source, const char *path, const char *sha256, int vocab_size)
{
    Shard *shard;
    TRY(shard_open(&shard, path));
    const ShardInfo *info = shard_info(shard);
    // Without a tokenizer to compare with, the first shard sets it.
    if (sha256 == NULL && source->n_shards > 0)
        sha256 = shard_info(source->shards[0].shard)->tokenizer_sha256;
    Status status;
    TRY_GOTO(close_shard, check_shard(path, info, sha256, vocab_size));
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

static Status append_pattern(Source *source, const char *name, const char *pattern,
                             const char *sha256, int vocab_size)
{
    glob_t found;
    int error = glob(pattern, 0, NULL, &found);
    if (error == GLOB_NOMATCH)
        return fail(BAD_INPUT, "source %s: no file matches '%s'", name, pattern);
    if (error != 0)
        return fail(FAILED, "source %s: '%s' cannot be searched for", name, pattern);
    Status status = OK;
    for (size_t i = 0; i < found.gl_pathc && status == OK; i++)
        status = append_shard(source, found.gl_pathv[i], sha256, vocab_size);
    globfree(&found);
    return status;
}

Status source_open(Source **out, const char *name, char *const *patterns, int n_patterns,
                   int seq_len, const char *tokenizer_sha256, int vocab_size)
{
    Source *source = calloc(1, sizeof *source);
    if (source == NULL)
        return fail(FAILED, "source %s: no memory", name);
    source->seq_len = seq_len;
    Status status = OK;
    for (int i = 0; i < n_patterns; i++)
        TRY_GOTO(close_source,
                 append_pattern(source, name, patterns[i], tokenizer_sha256, vocab_size));
    if (source->n_samples == 0) {
        status = fail(BAD_INPUT,
                      "source %s: no shard of '%s' holds %d tokens, one sample; "
                      "use longer texts or a smaller seq_len",
                      name, n_patterns > 0 ? patterns[0] : "", seq_len + 1);
        goto close_source;
    }
    *out = source;
    return OK;
close_source:
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
    return shard_read(at->shard, (index - at->first_sample) * source->seq_len, source->seq_len + 1,
                      tokens);
}
