// bench_tokenize TOKENIZER_DIR TEXT_FILE [REPEATS]: speed of the tokenizer on one core, without
// files and shards around it. Documents end at blank lines, as tokenize_peer.py cuts them.
//
// Prints one line: MB/s (10^6 bytes per second of processor time), the bytes, the ids.
// bench_tokenize.sh sets it beside the `tokenizers` library.
#define _GNU_SOURCE
#include "base/file.h"
#include "bench/timing.h"
#include "data/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Of this process: what other programs take of the core does not count.
static double cpu_s(void)
{
    return timing_seconds(CLOCK_PROCESS_CPUTIME_ID);
}

// Encodes every document; *n_ids = their ids. Documents end behind a blank line, as
// tokenize_peer.py cuts them.
static Status encode_all(const Tokenizer *tokenizer, TokenBuffer *buffer, const char *text,
                         int64_t size, int64_t *n_ids)
{
    *n_ids = 0;
    while (size > 0) {
        const char *blank = memmem(text, (size_t)size, "\n\n", 2);
        int64_t length = blank != NULL ? blank + 2 - text : size;
        buffer->count = 0;
        TRY(tokenizer_encode(tokenizer, buffer, text, length, false));
        *n_ids += buffer->count;
        text += length;
        size -= length;
    }
    return OK;
}

// The fastest of the repeats: what slows one down comes from outside.
static Status measure(const char *dir, const char *path, int repeats)
{
    Status status;
    Tokenizer *tokenizer;
    FileMap map;
    TokenBuffer buffer = {0};
    int64_t n_ids = 0;
    double best_s = 1e30;
    TRY(tokenizer_load(&tokenizer, dir));
    TRY_GOTO(release, file_map(&map, path));
    for (int i = 0; i < repeats; i++) {
        double start_s = cpu_s();
        TRY_GOTO(unmap,
                 encode_all(tokenizer, &buffer, (const char *)map.bytes, map.size_bytes, &n_ids));
        double elapsed_s = cpu_s() - start_s;
        best_s = elapsed_s < best_s ? elapsed_s : best_s;
    }
    printf("%.2f MB/s %lld bytes %lld ids\n", 1e-6 * (double)map.size_bytes / best_s,
           (long long)map.size_bytes, (long long)n_ids);
unmap:
    file_unmap(&map);
release:
    token_buffer_release(&buffer);
    tokenizer_release(tokenizer);
    return status;
}

int main(int argc, char **argv)
{
    int repeats = argc > 3 ? atoi(argv[3]) : 5;
    if (argc < 3 || repeats < 1) {
        fprintf(stderr, "usage: bench_tokenize TOKENIZER_DIR TEXT_FILE [REPEATS]\n");
        return 2;
    }
    Status status = measure(argv[1], argv[2], repeats);
    if (status != OK)
        fprintf(stderr, "bench_tokenize: %s\n", fail_text());
    return (int)status;
}
