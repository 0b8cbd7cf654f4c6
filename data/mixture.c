#include "data/mixture.h"

#include "base/random.h"
#include "data/interleave.h"
#include "data/order.h"
#include "data/paths.h"
#include "data/shard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Source {
    char *name;      // owned
    Shard **shards;  // owned [n_shards]
    int64_t *firsts; // owned [n_shards + 1]: number of the first sample of each shard
    int n_shards;
} Source;

struct Mixture {
    Source *sources; // owned [n_sources]
    int n_sources;
    int seq_len, vocab_size;
    uint64_t seed;
    Interleave *interleave; // owned
};

// Where sample `index` of the run lies.
typedef struct Place {
    const Source *source;
    Shard *shard;
    int64_t epoch;
    int64_t sample;      // of the source, 0..n-1
    int64_t first_token; // in the shard
} Place;

static int64_t source_n_samples(const Source *source)
{
    return source->firsts[source->n_shards];
}

static Status check_tokenizer(const Shard *shard, const char *wanted, const char *whose)
{
    const char *sha256 = shard_info(shard)->tokenizer_sha256;
    if (strcmp(sha256, wanted) != 0)
        return fail(BAD_INPUT, "%s: made with tokenizer %.12s, %s has %.12s; tokenize it again",
                    shard_path(shard), sha256, whose, wanted);
    return OK;
}

static Status open_shards(Source *source, const PathList *list, int seq_len, const char *sha256)
{
    source->shards = calloc((size_t)list->count, sizeof *source->shards);
    source->firsts = calloc((size_t)list->count + 1, sizeof *source->firsts);
    if (source->shards == NULL || source->firsts == NULL)
        return fail(FAILED, "source '%s': out of memory for %d shards", source->name, list->count);
    for (int i = 0; i < list->count; i++) {
        TRY(shard_open(&source->shards[i], list->paths[i]));
        source->n_shards = i + 1;
        if (sha256 != NULL)
            TRY(check_tokenizer(source->shards[i], sha256, "the model"));
        // Sample j has tokens [j T, j T + T], the last of them shared with sample j + 1.
        const int64_t n_samples = (shard_info(source->shards[i])->n_tokens - 1) / seq_len;
        source->firsts[i + 1] = source->firsts[i] + n_samples;
    }
    if (source_n_samples(source) == 0)
        return fail(BAD_INPUT,
                    "source '%s': no shard holds a sample of %d + 1 tokens; lower seq_len or add "
                    "text",
                    source->name, seq_len);
    return OK;
}

static Status open_source(Source *source, const SourceSpec *spec, int seq_len, const char *sha256)
{
    source->name = strdup(spec->name != NULL ? spec->name : "(unnamed)");
    if (source->name == NULL)
        return fail(FAILED, "out of memory for a source's name");
    if (spec->n_shards < 1)
        return fail(BAD_INPUT, "source '%s': no shards are named", source->name);
    PathList list;
    Status status = paths_expand(&list, spec->shards, spec->n_shards);
    if (status != OK)
        return fail_within(status, "source '%s'", source->name);
    status = open_shards(source, &list, seq_len, sha256);
    paths_release(&list);
    return status;
}

static Status open_interleave(Interleave **out, const SourceSpec *specs, int n_specs)
{
    double *weights = calloc((size_t)n_specs, sizeof *weights);
    if (weights == NULL)
        return fail(FAILED, "out of memory for %d sources", n_specs);
    for (int i = 0; i < n_specs; i++)
        weights[i] = specs[i].weight;
    Status status = interleave_create(out, weights, n_specs);
    free(weights);
    return status;
}

Status mixture_open(Mixture **out, const SourceSpec *specs, int n_specs, int seq_len, uint64_t seed,
                    const char *tokenizer_sha256, int vocab_size)
{
    if (n_specs < 1 || seq_len < 1 || vocab_size < 1)
        return fail(BAD_INPUT, "%d sources, seq_len %d and vocabulary %d: each must be at least 1",
                    n_specs, seq_len, vocab_size);
    Status status;
    Mixture *mixture = calloc(1, sizeof *mixture);
    if (mixture == NULL)
        return fail(FAILED, "out of memory for %d sources", n_specs);
    mixture->seq_len = seq_len;
    mixture->vocab_size = vocab_size;
    mixture->seed = seed;
    mixture->sources = calloc((size_t)n_specs, sizeof *mixture->sources);
    if (mixture->sources == NULL) {
        status = fail(FAILED, "out of memory for %d sources", n_specs);
        goto close;
    }
    TRY_GOTO(close, open_interleave(&mixture->interleave, specs, n_specs));
    for (int i = 0; i < n_specs; i++) {
        mixture->n_sources = i + 1;
        TRY_GOTO(close, open_source(&mixture->sources[i], &specs[i], seq_len, tokenizer_sha256));
    }
    const Shard *first = mixture->sources[0].shards[0];
    for (int i = 0; i < n_specs; i++)
        for (int s = 0; s < mixture->sources[i].n_shards; s++)
            TRY_GOTO(close,
                     check_tokenizer(mixture->sources[i].shards[s],
                                     shard_info(first)->tokenizer_sha256, shard_path(first)));
    *out = mixture;
    return OK;
close:
    mixture_close(mixture);
    return status;
}

static Place find_place(const Mixture *mixture, int64_t index)
{
    CHECK(index >= 0, "sample %lld", (long long)index);
    int64_t nth;
    const int which = interleave_at(mixture->interleave, index, &nth);
    const Source *source = &mixture->sources[which];
    const int64_t n = source_n_samples(source);
    Place place = {.source = source, .epoch = nth / n};
    char purpose[64];
    snprintf(purpose, sizeof purpose, "order of source %d epoch %lld", which,
             (long long)place.epoch);
    place.sample = order_at(random_key(mixture->seed, purpose), n, nth % n);
    // The last shard that starts at or before the sample; empty ones start where the next does.
    int low = 0, high = source->n_shards - 1;
    while (low < high) {
        const int middle = low + (high - low + 1) / 2;
        if (source->firsts[middle] <= place.sample)
            low = middle;
        else
            high = middle - 1;
    }
    place.shard = source->shards[low];
    place.first_token = (place.sample - source->firsts[low]) * mixture->seq_len;
    return place;
}

Status mixture_read(Mixture *mixture, int64_t index, int32_t *tokens)
{
    const Place place = find_place(mixture, index);
    TRY(shard_read(place.shard, place.first_token, mixture->seq_len + 1, tokens));
    // A tokenizer may know more tokens than the model embeds; that matters only where they occur.
    for (int i = 0; i <= mixture->seq_len; i++) {
        if (tokens[i] >= mixture->vocab_size)
            return fail(BAD_INPUT, "%s: token %lld is %d, the model's vocabulary has %d",
                        shard_path(place.shard), (long long)(place.first_token + i), (int)tokens[i],
                        mixture->vocab_size);
    }
    return OK;
}

int64_t mixture_n_samples(const Mixture *mixture)
{
    int64_t n = 0;
    for (int i = 0; i < mixture->n_sources; i++)
        n += source_n_samples(&mixture->sources[i]);
    return n;
}

void mixture_describe(const Mixture *mixture, int64_t index, char *out, int out_bytes)
{
    const Place place = find_place(mixture, index);
    snprintf(out, (size_t)out_bytes, "%s epoch %lld sample %lld (tokens %lld.. of %s)",
             place.source->name, (long long)place.epoch, (long long)place.sample,
             (long long)place.first_token, shard_path(place.shard));
}

void mixture_close(Mixture *mixture)
{
    if (mixture == NULL)
        return;
    for (int i = 0; i < mixture->n_sources; i++) {
        Source *source = &mixture->sources[i];
        for (int s = 0; s < source->n_shards; s++)
            shard_close(source->shards[s]);
        free(source->shards);
        free(source->firsts);
        free(source->name);
    }
    free(mixture->sources);
    interleave_destroy(mixture->interleave);
    free(mixture);
}
