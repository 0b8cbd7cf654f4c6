// Text files into one token shard: the parts, which train/tokenize/tokenize_ranks.h puts together
// over ranks.
//
//     const TokenizeOptions options = {.tokenizer_dir = "/models/SmolLM-135M", .out = "web.h5"};
//     Encoder encoder;                              // every rank: texts to ids
//     TRY(encoder_open(&encoder, &options));
//     TokenizeJob *job;                             // one rank: reads texts, writes ids
//     TRY(tokenize_open(&job, &options, patterns, n_patterns));
//     TRY(tokenize_create(job, &encoder));
//     while ((status = tokenize_read(job, &texts, &fraction)) == OK && texts.count > 0) {
//         ids.count = 0, ids.size_bytes = 0;
//         for (...) TRY(encoder_append(&encoder, &ids, text, size_bytes));
//         TRY(tokenize_write(job, &ids));
//     }
//     TRY(tokenize_finish(job));                    // or tokenize_abandon(job)
//     encoder_close(&encoder);
//
// A document's ids are (bos) + ids of its text + (eos). Files are .jsonl and .txt, each may be
// compressed (data/text/text.h), named by paths or glob patterns, "-" for standard input, and read
// one after another. The shard appears under its name when it is complete; a failed or stopped run
// leaves nothing behind.
#ifndef MHA2MLA_DATA_TEXT_TOKENIZE_H
#define MHA2MLA_DATA_TEXT_TOKENIZE_H

#include "base/status.h"
#include "data/text/documents.h"
#include "data/text/text.h"
#include "data/tokenizer/tokenizer.h"

#include <signal.h>
#include <stdint.h>

enum { TOKENIZE_BATCH_BYTES = 1 << 18 };

typedef struct TokenizeCounts {
    int64_t n_documents; // that have tokens
    int64_t n_tokens;
    int64_t text_bytes;
    double fraction;   // of the files' bytes on disk, 0..1: for progress
    TextSkips skipped; // with skip_faults
} TokenizeCounts;

typedef struct TokenizeOptions {
    const char *tokenizer_dir; // with tokenizer.json, or vocab.json and merges.txt
    const char *out;           // ends in .h5
    TextFormat format;
    const char *text_field; // of .jsonl; NULL: "text"
    const char *separator;  // of .txt; NULL: one document per file
    // "auto", "none" or a token. auto bos: what tokenizer.json's post-processor adds around a text.
    // auto eos: the tokenizer's own, unless the post-processor has put it there. NULL: "auto".
    const char *bos, *eos;
    int64_t batch_bytes;               // of text in a batch; 0: TOKENIZE_BATCH_BYTES
    bool skip_faults;                  // go on behind broken lines and files
    const volatile sig_atomic_t *stop; // may be NULL; set: give up
    void (*on_progress)(const TokenizeCounts *so_far); // may be NULL; often
} TokenizeOptions;

// Texts to ids, with what goes around them.
typedef struct Encoder {
    Tokenizer *tokenizer;    // owned
    TokenBuffer buffer;      // owned
    bool add_special_tokens; // the post-processor's own
    int32_t before, after;   // ids of ours; -1: none
    int eos_id;              // for the shard; -1: none
} Encoder;

// BAD_INPUT: unfit tokenizer, unknown bos or eos.
Status encoder_open(Encoder *out, const TokenizeOptions *options);

// Appends the int32 ids of one text to `out` as one document.
Status encoder_append(Encoder *encoder, Documents *out, const char *text, int64_t size_bytes);

void encoder_close(Encoder *encoder); // a zeroed one is allowed

typedef struct TokenizeJob TokenizeJob;

// Expands the patterns and opens every file once, so that a wrong name shows before hours of work.
// BAD_INPUT: no such file, unknown ending, the name of the shard.
Status tokenize_open(TokenizeJob **out, const TokenizeOptions *options, char *const *patterns,
                     int n_patterns);

// Starts the shard. FAILED if it cannot be written.
Status tokenize_create(TokenizeJob *job, const Encoder *encoder);

// Replaces `texts` by the next batch of documents, none after the last.
// *fraction is how much of the files' bytes has been read then.
Status tokenize_read(TokenizeJob *job, Documents *texts, double *fraction);

// Appends documents of int32 ids.
Status tokenize_write(TokenizeJob *job, const Documents *ids);

// Documents, tokens and skips so far; the other counts are the caller's.
void tokenize_count(const TokenizeJob *job, TokenizeCounts *counts);

// Completes the shard and frees the job, also on failure. BAD_INPUT if there was nothing to write.
Status tokenize_finish(TokenizeJob *job);

// Removes what was written and frees the job. NULL is allowed.
void tokenize_abandon(TokenizeJob *job);

#endif
