// Text files into one token shard.
//
//     const TokenizeOptions options = {.tokenizer_dir = "/models/SmolLM-135M", .out = "web.h5"};
//     TokenizeCounts counts;
//     TRY(tokenize_files(&counts, &options, patterns, n_patterns));
//
// A document's ids are (bos) + ids of its text + (eos). Files are .jsonl and .txt, each may be gzip
// (data/text.h), named by paths or glob patterns and read one after another. The shard appears
// under its name when it is complete; a failed or stopped run leaves nothing behind.
#ifndef MHA2MLA_DATA_TOKENIZE_H
#define MHA2MLA_DATA_TOKENIZE_H

#include "base/status.h"

#include <signal.h>
#include <stdint.h>

typedef struct TokenizeCounts {
    int64_t n_documents; // that have tokens
    int64_t n_tokens;
    int64_t text_bytes;
    double fraction; // of the files' bytes on disk, 0..1: for progress
} TokenizeCounts;

typedef struct TokenizeOptions {
    const char *tokenizer_dir; // with tokenizer.json, or vocab.json and merges.txt
    const char *out;           // ends in .h5
    const char *text_field;    // of .jsonl; NULL: "text"
    const char *separator;     // of .txt; NULL: one document per file
    // "auto", "none" or a token. auto bos: what tokenizer.json's post-processor adds around a text.
    // auto eos: the tokenizer's own, unless the post-processor has put it there. NULL: "auto".
    const char *bos, *eos;
    const volatile sig_atomic_t *stop;                 // may be NULL; set: give up
    void (*on_document)(const TokenizeCounts *so_far); // may be NULL; after each document
} TokenizeOptions;

// BAD_INPUT: no such file, unknown ending, damaged text, unfit tokenizer, unknown token, nothing to
// write; every file is opened once before the work starts. FAILED: the disk, memory, or `stop`.
Status tokenize_files(TokenizeCounts *out, const TokenizeOptions *options, char *const *patterns,
                      int n_patterns);

#endif
