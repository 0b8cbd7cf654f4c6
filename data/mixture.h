// Which tokens are sample i of a run: a mixture of sources, each a list of token shards.
//
//     Mixture *mixture;
//     TRY(mixture_open(&mixture, specs, n_specs, seq_len, seed, tokenizer_sha256));
//     TRY(mixture_read(mixture, sample, tokens));   // seq_len + 1 tokens
//     mixture_close(mixture);
//
// Sample j of a source is its tokens [j T, j T + T] (T + 1 of them) over its shards one after
// another, T = seq_len; a sample does not cross from one shard into the next. Its order in an epoch
// is a keyed permutation of 0..n-1. Which source a global sample index belongs to, and the
// how-many-th of that source it is, are pure functions of the weights; at every point each source's
// share is less than one sample off. So sample i is the same for any number of ranks and after any
// resume.
//
// One thread at a time reads; any other may meanwhile ask for everything else.
#ifndef MHA2MLA_DATA_MIXTURE_H
#define MHA2MLA_DATA_MIXTURE_H

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

typedef struct SourceSpec {
    char *name;    // for messages
    char **shards; // paths or glob patterns, expanded in sorted order
    int n_shards;
    double weight; // share of the samples; any positive numbers, normalized
} SourceSpec;

typedef struct Mixture Mixture;

// Opens every shard; `specs` must outlive the mixture. BAD_INPUT if one is missing, damaged, made
// with another tokenizer (tokenizer_sha256 may be NULL: any, but the same for all), or a source
// holds no full sample.
Status mixture_open(Mixture **out, const SourceSpec *specs, int n_specs, int seq_len, uint64_t seed,
                    const char *tokenizer_sha256, int vocab_size);

// Reads sample `index` >= 0: tokens [seq_len + 1]. BAD_INPUT for a damaged chunk or a token that is
// not below vocab_size.
Status mixture_read(Mixture *mixture, int64_t index, int32_t *tokens);

// Text such as "fineweb-edu-dedup epoch 0 sample 118" that names sample `index`.
void mixture_describe(const Mixture *mixture, int64_t index, char *out, int out_bytes);

// What a run has read of a source.
typedef struct SourceEpochs {
    const char *name; // borrowed from the specs
    int64_t n_held;   // samples there are
    int64_t n_read;   // samples read, again and again
    double epochs;    // n_read / n_held
} SourceEpochs;

int mixture_n_sources(const Mixture *mixture);

// What the first n_samples >= 0 samples of the run take of a source; exact, a pure function.
SourceEpochs mixture_epochs(const Mixture *mixture, int source, int64_t n_samples);

// Everything that decides which tokens a sample has: {version, seed, seq_len, tokenizer_sha256,
// sources: [{name, weight, shards: [{file, tokens, content}]}]}. Reads no file: the contents are
// known by checksums taken when the shards were opened. The caller owns it; NULL without memory.
json_t *mixture_fingerprint(const Mixture *mixture);

// Compares with a fingerprint saved earlier. BAD_INPUT if any sample would be another one: `where`
// and the first field that differs, with both values.
Status mixture_check_fingerprint(const Mixture *mixture, const json_t *saved, const char *where);

void mixture_close(Mixture *mixture);

#endif
