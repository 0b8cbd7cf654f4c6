// Two pure functions compose the order of a run: data/interleave.h says which source sample `index`
// comes from and the how-many-th of that source it is; data/order.h permutes each epoch of a
// source. Nothing is stored, so a run resumes at any index on any number of ranks.
#include "data/mixture.h"

#include "base/checksum.h"
#include "base/random.h"
#include "data/fingerprint.h"
#include "data/interleave.h"
#include "data/order.h"
#include "data/shards/source.h"

#include <stdio.h>
#include <stdlib.h>

// Names the rules by which a sample follows from its index. It is part of the fingerprint: whoever
// changes the rules changes it, and runs of the old rules are then refused at resuming.
enum { ORDER_VERSION = 1 };

struct Mixture {
    const SourceSpec *specs; // borrowed, for the names
    Source **sources;        // owned [n_sources]
    int n_sources;
    int seq_len;
    uint64_t seed;
    char tokenizer_sha256[SHA256_HEX_BYTES]; // "" if unknown
    Interleave *interleave;                  // owned
};

// Where a sample of the run lies.
typedef struct Place {
    int source;
    int64_t epoch;
    int64_t sample; // index in the source
} Place;

static Place find_place(const Mixture *mixture, int64_t index)
{
    int64_t nth;
    Place place = {.source = interleave_at(mixture->interleave, index, &nth)};
    // Epochs of a source follow one another within its own sequence of samples; sources reach their
    // ends at different times.
    int64_t n = source_n_samples(mixture->sources[place.source]);
    place.epoch = nth / n;
    // The key depends on source and epoch, so no two epochs have the same order.
    char purpose[64];
    snprintf(purpose, sizeof purpose, "order of source %d epoch %lld", place.source,
             (long long)place.epoch);
    place.sample = order_at(random_key(mixture->seed, purpose), n, nth % n);
    return place;
}

// Errors name the file and the token within it, not the sample: that is what the user can look at.
Status mixture_read(Mixture *mixture, int64_t index, int32_t *tokens)
{
    Place place = find_place(mixture, index);
    return source_read(mixture->sources[place.source], place.sample, tokens);
}

void mixture_describe(const Mixture *mixture, int64_t index, char *out, int out_bytes)
{
    Place place = find_place(mixture, index);
    snprintf(out, (size_t)out_bytes, "%s epoch %lld sample %lld", mixture->specs[place.source].name,
             (long long)place.epoch, (long long)place.sample);
}

int mixture_n_sources(const Mixture *mixture)
{
    return mixture->n_sources;
}

SourceEpochs mixture_epochs(const Mixture *mixture, int source, int64_t n_samples)
{
    CHECK(source >= 0 && source < mixture->n_sources, "source %d", source);
    const int64_t n_held = source_n_samples(mixture->sources[source]);
    const int64_t n_read = interleave_count(mixture->interleave, n_samples, source);
    return (SourceEpochs){
        .name = mixture->specs[source].name,
        .n_held = n_held,
        .n_read = n_read,
        .epochs = (double)n_read / (double)n_held,
    };
}

// In the order of the config, which is part of the order of samples: ties between sources go to the
// first.
static json_t *fingerprint_sources(const Mixture *mixture)
{
    json_t *list = json_array();
    for (int i = 0; i < mixture->n_sources && list != NULL; i++) {
        const SourceSpec *spec = &mixture->specs[i];
        json_t *entry = json_pack("{s:s, s:f, s:o}", "name", spec->name, "weight", spec->weight,
                                  "shards", source_fingerprint(mixture->sources[i]));
        if (entry == NULL || json_array_append_new(list, entry) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

json_t *mixture_fingerprint(const Mixture *mixture)
{
    return json_pack("{s:i, s:I, s:i, s:s, s:o}", "version", ORDER_VERSION, "seed",
                     (json_int_t)mixture->seed, "seq_len", mixture->seq_len, "tokenizer_sha256",
                     mixture->tokenizer_sha256, "sources", fingerprint_sources(mixture));
}

Status mixture_check_fingerprint(const Mixture *mixture, const json_t *saved, const char *where)
{
    json_t *current = mixture_fingerprint(mixture);
    if (current == NULL)
        return fail(FAILED, "%s: no memory to compare its data", where);
    const Status status = fingerprint_check(current, saved, where);
    json_decref(current);
    return status;
}

void mixture_close(Mixture *mixture)
{
    if (mixture == NULL)
        return;
    for (int i = 0; i < mixture->n_sources; i++)
        source_close(mixture->sources[i]);
    free(mixture->sources);
    interleave_destroy(mixture->interleave);
    free(mixture);
}

static Status open_interleave(Interleave **out, const SourceSpec *specs, int n_specs)
{
    double *weights = calloc((size_t)n_specs, sizeof *weights);
    if (weights == NULL)
        return fail(FAILED, "no memory for %d sources", n_specs);
    for (int i = 0; i < n_specs; i++)
        weights[i] = specs[i].weight;
    Status status = interleave_create(out, weights, n_specs);
    free(weights);
    return status;
}

Status mixture_open(Mixture **out, const SourceSpec *specs, int n_specs, int seq_len, uint64_t seed,
                    const char *tokenizer_sha256, int vocab_size)
{
    CHECK(n_specs >= 1 && seq_len >= 1, "%d sources, %d tokens", n_specs, seq_len);
    Mixture *mixture = calloc(1, sizeof *mixture);
    if (mixture == NULL)
        return fail(FAILED, "no memory for %d sources", n_specs);
    mixture->specs = specs;
    mixture->seq_len = seq_len;
    mixture->seed = seed;
    Status status;
    mixture->sources = calloc((size_t)n_specs, sizeof *mixture->sources);
    if (mixture->sources == NULL) {
        status = fail(FAILED, "no memory for %d sources", n_specs);
        goto close;
    }
    TRY_GOTO(close, open_interleave(&mixture->interleave, specs, n_specs));
    for (; mixture->n_sources < n_specs; mixture->n_sources++) {
        const SourceSpec *spec = &specs[mixture->n_sources];
        TRY_GOTO(close, source_open(&mixture->sources[mixture->n_sources], spec->name, spec->shards,
                                    spec->n_shards, seq_len, tokenizer_sha256, vocab_size));
        const char *sha256 = source_tokenizer_sha256(mixture->sources[mixture->n_sources]);
        if (tokenizer_sha256 == NULL && sha256[0] != '\0') // then the first shard's holds for all
            tokenizer_sha256 = sha256;
    }
    if (tokenizer_sha256 != NULL)
        snprintf(mixture->tokenizer_sha256, sizeof mixture->tokenizer_sha256, "%s",
                 tokenizer_sha256);
    *out = mixture;
    return OK;
close:
    mixture_close(mixture);
    return status;
}
