// The interleaving is Tijdeman's solution of the chairman assignment problem (R. Tijdeman, Discrete
// Mathematics 32, 1980): with weights w_i that sum to 1 and counts c_i after n - 1 samples, sample
// n goes, among the sources that are behind enough,
//     w_i n - c_i >= 1 / (2k - 2),
// to the one whose deadline (1 - 1 / (2k - 2) - w_i n + c_i) / w_i is the nearest. Then
// |w_i n - c_i| <= 1 - 1 / (2k - 2) < 1 at every n, which is the best bound there is.
//
// The counts at an index follow from the weights alone. A cursor holds those of the last index
// asked for; training asks in ascending order. A jump back starts again from 0 and costs about
// 20 ns per sample.
#include "data/mixture.h"

#include "base/random.h"
#include "data/order.h"
#include "data/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct MixturePart {
    char *name;     // owned
    Source *source; // owned
    double weight;  // normalized
    int64_t count;  // of its samples below the cursor
} MixturePart;

struct Mixture {
    MixturePart *parts; // owned
    int n_parts;
    int seq_len;
    uint64_t seed;
    int64_t cursor; // the counts are those of samples 0 .. cursor - 1
};

// The source of sample `cursor`.
static int choose_part(const Mixture *mixture)
{
    const int k = mixture->n_parts;
    if (k == 1)
        return 0;
    const double slack = 1.0 / (2.0 * k - 2.0), n = (double)mixture->cursor + 1.0;
    int chosen = -1;
    double nearest = 0;
    for (int i = 0; i < k; i++) {
        const MixturePart *part = &mixture->parts[i];
        double behind = part->weight * n - (double)part->count;
        double deadline = (1.0 - slack - behind) / part->weight;
        // The tolerance keeps a source eligible whose debt is the slack but for rounding.
        if (behind >= slack - 1e-9 && (chosen < 0 || deadline < nearest)) {
            chosen = i;
            nearest = deadline;
        }
    }
    CHECK(chosen >= 0, "no source is due at sample %lld", (long long)mixture->cursor);
    return chosen;
}

// Moves the cursor to `index`; returns the source of that sample, whose count says the how-many-th
// of the source's samples it is.
static MixturePart *seek(Mixture *mixture, int64_t index)
{
    CHECK(index >= 0, "sample %lld", (long long)index);
    if (index < mixture->cursor) {
        mixture->cursor = 0;
        for (int i = 0; i < mixture->n_parts; i++)
            mixture->parts[i].count = 0;
    }
    for (; mixture->cursor < index; mixture->cursor++)
        mixture->parts[choose_part(mixture)].count++;
    return &mixture->parts[choose_part(mixture)];
}

// Epoch and sample of the source that its count-th turn reads.
static int64_t sample_of(const Mixture *mixture, const MixturePart *part, int64_t *epoch)
{
    int64_t n = source_n_samples(part->source);
    *epoch = part->count / n;
    char purpose[512];
    snprintf(purpose, sizeof purpose, "order/%s/epoch %lld", part->name, (long long)*epoch);
    return order_at(random_key(mixture->seed, purpose), n, part->count % n);
}

int mixture_part(Mixture *mixture, int64_t index)
{
    return (int)(seek(mixture, index) - mixture->parts);
}

Status mixture_read(Mixture *mixture, int64_t index, int32_t *tokens)
{
    int64_t epoch;
    MixturePart *part = seek(mixture, index);
    return source_read(part->source, sample_of(mixture, part, &epoch), tokens);
}

void mixture_describe(Mixture *mixture, int64_t index, char *out, int out_bytes)
{
    int64_t epoch;
    const MixturePart *part = seek(mixture, index);
    int64_t sample = sample_of(mixture, part, &epoch);
    snprintf(out, (size_t)out_bytes, "%s epoch %lld sample %lld", part->name, (long long)epoch,
             (long long)sample);
}

int64_t mixture_n_samples(const Mixture *mixture)
{
    int64_t n = 0;
    for (int i = 0; i < mixture->n_parts; i++)
        n += source_n_samples(mixture->parts[i].source);
    return n;
}

void mixture_close(Mixture *mixture)
{
    if (mixture == NULL)
        return;
    for (int i = 0; i < mixture->n_parts; i++) {
        source_close(mixture->parts[i].source);
        free(mixture->parts[i].name);
    }
    free(mixture->parts);
    free(mixture);
}

static Status open_part(MixturePart *part, const Mixture *mixture, const SourceSpec *spec,
                        double weight_sum, const char *sha256, int vocab_size)
{
    if (!(spec->weight > 0) || !(weight_sum < 1e300))
        return fail(BAD_INPUT, "source %s: weight is %g, allowed are numbers above 0", spec->name,
                    spec->weight);
    part->weight = spec->weight / weight_sum;
    part->name = strdup(spec->name);
    if (part->name == NULL)
        return fail(FAILED, "source %s: no memory", spec->name);
    return source_open(&part->source, spec->name, spec->shards, spec->n_shards, mixture->seq_len,
                       sha256, vocab_size);
}

Status mixture_open(Mixture **out, const SourceSpec *specs, int n_specs, int seq_len, uint64_t seed,
                    const char *tokenizer_sha256, int vocab_size)
{
    CHECK(n_specs >= 1 && seq_len >= 1, "%d sources, %d tokens", n_specs, seq_len);
    Mixture *mixture = calloc(1, sizeof *mixture);
    if (mixture == NULL)
        return fail(FAILED, "no memory for the data sources");
    mixture->seq_len = seq_len;
    mixture->seed = seed;
    Status status;
    mixture->parts = calloc((size_t)n_specs, sizeof *mixture->parts);
    if (mixture->parts == NULL) {
        status = fail(FAILED, "no memory for %d data sources", n_specs);
        goto close_mixture;
    }
    double weight_sum = 0;
    for (int i = 0; i < n_specs; i++)
        weight_sum += specs[i].weight;
    for (int i = 0; i < n_specs; i++) {
        mixture->n_parts++; // counted first: a part that fails to open is closed with the rest
        TRY_GOTO(close_mixture, open_part(&mixture->parts[i], mixture, &specs[i], weight_sum,
                                          tokenizer_sha256, vocab_size));
        if (tokenizer_sha256 == NULL)
            tokenizer_sha256 = source_tokenizer_sha256(mixture->parts[0].source);
    }
    *out = mixture;
    return OK;
close_mixture:
    mixture_close(mixture);
    return status;
}
