// The half of tokenization that one rank does: it reads the texts and writes the shard. Reading is
// faster than encoding by far, so one reader keeps many ranks busy, and the order of documents in
// the shard is that of the files, whatever the number of ranks.
#include "data/text/tokenize.h"

#include "base/paths.h"
#include "data/shards/shard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct TokenizeJob {
    const TokenizeOptions *options; // borrowed
    TextOptions text;
    TextSkips skipped;
    PathList files;
    int at_file;        // the one that is read, or the next
    TextReader *reader; // NULL between two files
    char source[SHARD_SOURCE_BYTES];
    ShardWriter *writer;
    int64_t total_bytes, done_bytes; // sizes on the disk, so compressed: for progress alone
};

// 0 for a file that is gone, as progress must not fail the work, and for pipes.
static int64_t size_on_disk(const char *path)
{
    struct stat st;
    const bool is_there =
        text_source_is_stdin(path) ? fstat(STDIN_FILENO, &st) == 0 : stat(path, &st) == 0;
    return is_there && S_ISREG(st.st_mode) ? (int64_t)st.st_size : 0;
}

// Every file is opened once before work starts: a wrong name or a missing permission is reported at
// once and not after hours.
static Status check_files(TokenizeJob *job)
{
    for (int i = 0; i < job->files.count; i++) {
        const char *path = job->files.paths[i];
        TextReader *reader;
        bool is_jsonl;
        TRY(text_source_is_jsonl(&is_jsonl, path, job->text.format));
        job->total_bytes += size_on_disk(path);
        if (text_source_is_read_once(path))
            continue;
        TRY(text_open(&reader, path, &job->text));
        text_close(reader);
    }
    return OK;
}

// The suffix tells the kind of a token file (data/shards/token_file.h), so another would not be
// read back.
static Status check_name(const char *out)
{
    const size_t length = strlen(out);
    if (length < 4 || strcmp(out + length - 3, ".h5") != 0)
        return fail(BAD_INPUT, "%s: the name of a shard ends in .h5", out);
    return OK;
}

// The patterns as they were given, as many as fit.
static void describe_source(char out[SHARD_SOURCE_BYTES], char *const *patterns, int n_patterns)
{
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < n_patterns; i++) {
        const size_t length = strlen(patterns[i]);
        if (used + length + sizeof " ..." + 1 > SHARD_SOURCE_BYTES) {
            strcpy(out + used, " ...");
            return;
        }
        used += (size_t)snprintf(out + used, SHARD_SOURCE_BYTES - used, "%s%s", i > 0 ? " " : "",
                                 patterns[i]);
    }
}

Status tokenize_open(TokenizeJob **out, const TokenizeOptions *options, char *const *patterns,
                     int n_patterns)
{
    if (n_patterns < 1)
        return fail(BAD_INPUT, "no text files are named");
    TRY(check_name(options->out));
    TokenizeJob *job = calloc(1, sizeof *job);
    if (job == NULL)
        return fail(FAILED, "%s: out of memory", options->out);
    job->options = options;
    job->text = (TextOptions){.format = options->format,
                              .field = options->text_field,
                              .separator = options->separator,
                              .skipped = options->skip_faults ? &job->skipped : NULL,
                              .stop = options->stop};
    describe_source(job->source, patterns, n_patterns);
    Status status;
    TRY_GOTO(abandon, text_source_expand(&job->files, patterns, n_patterns));
    TRY_GOTO(abandon, check_files(job));
    *out = job;
    return OK;
abandon:
    tokenize_abandon(job);
    return status;
}

// Apart from tokenize_open(), since the vocabulary size and eos are known only once an encoder has
// loaded.
Status tokenize_create(TokenizeJob *job, const Encoder *encoder)
{
    ShardInfo info = {.vocab_size = tokenizer_vocab_size(encoder->tokenizer),
                      .eos_id = encoder->eos_id};
    snprintf(info.tokenizer_sha256, sizeof info.tokenizer_sha256, "%s",
             tokenizer_sha256(encoder->tokenizer));
    memcpy(info.source, job->source, sizeof info.source);
    return shard_create(&job->writer, job->options->out, &info);
}

// The next document of all files, its bytes NULL after the last.
static Status next_document(TokenizeJob *job, TextDocument *out)
{
    *out = (TextDocument){NULL, 0};
    while (job->at_file < job->files.count) {
        const char *path = job->files.paths[job->at_file];
        if (job->reader == NULL)
            TRY(text_open(&job->reader, path, &job->text));
        TRY(text_next(job->reader, out));
        if (out->bytes != NULL)
            return OK;
        text_close(job->reader);
        job->reader = NULL;
        job->done_bytes += size_on_disk(path);
        job->at_file++;
    }
    return OK;
}

Status tokenize_read(TokenizeJob *job, Documents *texts, double *fraction)
{
    // A batch is at least this long and ends with a whole document.
    const int64_t wanted = job->options->batch_bytes;
    texts->count = texts->size_bytes = 0;
    while (texts->size_bytes < (wanted > 0 ? wanted : TOKENIZE_BATCH_BYTES)) {
        TextDocument document;
        TRY(next_document(job, &document));
        if (document.bytes == NULL)
            break;
        TRY(documents_append(texts, document.bytes, document.size_bytes));
    }
    // Where in the compressed file the reader is says how much work is left better than counts do:
    // how many documents there are is known only in the end.
    int64_t read_bytes = job->done_bytes;
    if (job->reader != NULL && size_on_disk(job->files.paths[job->at_file]) > 0)
        read_bytes += text_offset_bytes(job->reader);
    *fraction = job->total_bytes > 0 ? (double)read_bytes / (double)job->total_bytes : 1;
    return OK;
}

// Documents without ids are dropped by shard_append(), so counts may differ from those that were
// read.
Status tokenize_write(TokenizeJob *job, const Documents *ids)
{
    const int32_t *next = (const int32_t *)(const void *)ids->bytes; // from malloc: aligned
    for (int64_t d = 0; d < ids->count; d++) {
        const int64_t n_ids = ids->sizes[d] / (int64_t)sizeof *next;
        TRY(shard_append(job->writer, next, n_ids));
        next += n_ids;
    }
    return OK;
}

void tokenize_count(const TokenizeJob *job, TokenizeCounts *counts)
{
    counts->n_documents = shard_writer_n_documents(job->writer);
    counts->n_tokens = shard_writer_n_tokens(job->writer);
    counts->skipped = job->skipped;
}

Status tokenize_finish(TokenizeJob *job)
{
    // shard_finish() frees the writer even on failure.
    const Status status = shard_finish(job->writer);
    job->writer = NULL;
    tokenize_abandon(job);
    return status;
}

void tokenize_abandon(TokenizeJob *job)
{
    if (job == NULL)
        return;
    shard_abandon(job->writer);
    text_close(job->reader);
    paths_release(&job->files);
    free(job);
}
