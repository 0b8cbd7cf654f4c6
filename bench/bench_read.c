// bench_read SHARD.h5 [SEQ_LEN] [READS]: speed of reading training samples on one core: random
// sequences of SEQ_LEN + 1 tokens (default 2049) through mixture_read(), as a run reads them.
//
//     build/release/bench/bench_read shards/fineweb-edu-dedup.h5 2048 2000
//
// Prints one line: reads/s and tokens/s of processor time, the chunk size of the shard, and the
// tokens/s as a multiple of what SmolLM-135M's training takes on one core (TRAINING_TOKENS_S).
// Reading has to be at least 20 times as fast, so that it is lost beside the step.
#include "bench/timing.h"
#include "data/mixture.h"
#include "data/shards/shard.h"

#include <stdio.h>
#include <stdlib.h>

// One core of a 2-core AVX2 machine, T = 2048, MLA.
enum { TRAINING_TOKENS_S = 95 };

// Of this process: what other programs take of the core does not count.
static double cpu_s(void)
{
    return timing_seconds(CLOCK_PROCESS_CPUTIME_ID);
}

// Chunk size and vocabulary come from the shard itself: a mixture does not show them.
static Status read_header(const char *path, int64_t *chunk_tokens, int *vocab_size)
{
    Shard *shard;
    TRY(shard_open(&shard, path));
    *chunk_tokens = shard_chunk_tokens(shard);
    *vocab_size = shard_info(shard)->vocab_size;
    shard_close(shard);
    return OK;
}

// The mixture permutes its samples, so reads hit random chunks, as in training.
static Status measure(char *path, int seq_len, int n_reads)
{
    char name[] = "shard";
    const SourceSpec spec = {.name = name, .shards = &path, .n_shards = 1, .weight = 1};
    int64_t chunk_tokens;
    int vocab_size;
    Mixture *mixture;
    TRY(read_header(path, &chunk_tokens, &vocab_size));
    TRY(mixture_open(&mixture, &spec, 1, seq_len, 42, NULL, vocab_size));
    Status status = OK;
    int32_t *tokens = malloc(((size_t)seq_len + 1) * sizeof *tokens);
    if (tokens == NULL)
        status = fail(FAILED, "out of memory for %d tokens", seq_len);
    const double start_s = cpu_s();
    for (int i = 0; i < n_reads && status == OK; i++)
        status = mixture_read(mixture, i, tokens);
    const double read_s = (cpu_s() - start_s) / n_reads;
    if (status == OK)
        printf("%.0f reads/s, %.3g tokens/s, chunks of %lld tokens: %.0f times the %d tokens/s "
               "training takes per core\n",
               1 / read_s, seq_len / read_s, (long long)chunk_tokens,
               seq_len / read_s / TRAINING_TOKENS_S, TRAINING_TOKENS_S);
    free(tokens);
    mixture_close(mixture);
    return status;
}

int main(int argc, char **argv)
{
    const int seq_len = argc > 2 ? atoi(argv[2]) : 2048, n_reads = argc > 3 ? atoi(argv[3]) : 2000;
    if (argc < 2 || seq_len < 1 || n_reads < 1) {
        fprintf(stderr, "usage: bench_read SHARD.h5 [SEQ_LEN] [READS]\n");
        return 2;
    }
    const Status status = measure(argv[1], seq_len, n_reads);
    if (status != OK)
        fprintf(stderr, "bench_read: %s\n", fail_text());
    return (int)status;
}
