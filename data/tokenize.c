#include "data/tokenize.h"

#include "data/paths.h"
#include "data/shard.h"
#include "data/text.h"
#include "data/tokenizer.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

// What goes around the ids of a text.
typedef struct Ends {
    bool add_special_tokens; // the post-processor's own
    int32_t before, after;   // ids of ours; -1: none
    int eos_id;              // for the shard; -1: none
} Ends;

typedef struct Job {
    const TokenizeOptions *options;
    TextOptions text;
    Tokenizer *tokenizer;
    Ends ends;
    TokenBuffer buffer;
    ShardWriter *writer;
    int64_t total_bytes, done_bytes; // of the files as they are on the disk
    TokenizeCounts counts;
} Job;

static bool is(const char *choice, const char *word)
{
    return strcmp(choice != NULL ? choice : "auto", word) == 0;
}

// True if the post-processor ends every text with `eos`.
static Status ends_in_eos(bool *out, Tokenizer *tokenizer, int32_t eos)
{
    TokenBuffer plain = {0}, processed = {0};
    Status status;
    TRY_GOTO(release, tokenizer_encode(tokenizer, &plain, "a", 1, false));
    TRY_GOTO(release, tokenizer_encode(tokenizer, &processed, "a", 1, true));
    *out = processed.count > plain.count && processed.ids[processed.count - 1] == eos &&
           (plain.count == 0 || plain.ids[plain.count - 1] != eos);
release:
    token_buffer_release(&plain);
    token_buffer_release(&processed);
    return status;
}

static Status find_token(int32_t *out, const Job *job, const char *option, const char *token)
{
    *out = tokenizer_find(job->tokenizer, token);
    if (*out < 0)
        return fail(BAD_INPUT, "--%s: the tokenizer in %s has no token '%.200s'", option,
                    job->options->tokenizer_dir, token);
    return OK;
}

static Status choose_ends(Job *job)
{
    const TokenizeOptions *options = job->options;
    Ends *ends = &job->ends;
    *ends = (Ends){.add_special_tokens = is(options->bos, "auto"), .before = -1, .after = -1};
    if (!is(options->bos, "auto") && !is(options->bos, "none"))
        TRY(find_token(&ends->before, job, "bos", options->bos));
    ends->eos_id = -1;
    if (is(options->eos, "none"))
        return OK;
    if (is(options->eos, "auto"))
        ends->after = tokenizer_eos_id(job->tokenizer);
    else
        TRY(find_token(&ends->after, job, "eos", options->eos));
    if (ends->after < 0)
        return fail(BAD_INPUT,
                    "the tokenizer in %s names no token that ends a document; give one by --eos "
                    "TOKEN, or --eos none",
                    options->tokenizer_dir);
    ends->eos_id = ends->after;
    bool is_there = false;
    if (ends->add_special_tokens)
        TRY(ends_in_eos(&is_there, job->tokenizer, ends->after));
    if (is_there)
        ends->after = -1;
    return OK;
}

static Status append_id(TokenBuffer *buffer, int32_t id)
{
    return id < 0 ? OK : token_buffer_append(buffer, id);
}

static Status add_document(Job *job, const TextDocument *document)
{
    TokenBuffer *buffer = &job->buffer;
    buffer->count = 0;
    TRY(append_id(buffer, job->ends.before));
    TRY(tokenizer_encode(job->tokenizer, buffer, document->bytes, document->size_bytes,
                         job->ends.add_special_tokens));
    TRY(append_id(buffer, job->ends.after));
    TRY(shard_append(job->writer, buffer->ids, buffer->count));
    job->counts.text_bytes += document->size_bytes;
    job->counts.n_documents = shard_writer_n_documents(job->writer);
    job->counts.n_tokens = shard_writer_n_tokens(job->writer);
    return OK;
}

static int64_t size_on_disk(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : 0;
}

static Status add_file(Job *job, const char *path)
{
    TextReader *reader;
    TextDocument document;
    TRY(text_open(&reader, path, &job->text));
    Status status;
    for (;;) {
        if (job->options->stop != NULL && *job->options->stop != 0) {
            status = fail(FAILED, "interrupted; %s is not written", job->options->out);
            break;
        }
        status = text_next(reader, &document);
        if (status != OK || document.bytes == NULL)
            break;
        status = add_document(job, &document);
        if (status != OK) {
            fail_write_prefix("%s", path);
            break;
        }
        if (job->total_bytes > 0)
            job->counts.fraction =
                (double)(job->done_bytes + text_offset_bytes(reader)) / (double)job->total_bytes;
        if (job->options->on_document != NULL)
            job->options->on_document(&job->counts);
    }
    text_close(reader);
    job->done_bytes += size_on_disk(path);
    return status;
}

// A name that is no text file, or one that cannot be read, shows now and not after hours.
static Status check_files(Job *job, const PathList *list)
{
    for (int i = 0; i < list->count; i++) {
        TextReader *reader;
        TRY(text_open(&reader, list->paths[i], &job->text));
        text_close(reader);
        job->total_bytes += size_on_disk(list->paths[i]);
    }
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

static Status create_shard(Job *job, char *const *patterns, int n_patterns)
{
    const char *out = job->options->out;
    const size_t length = strlen(out);
    if (length < 4 || strcmp(out + length - 3, ".h5") != 0)
        return fail(BAD_INPUT, "%s: the name of a shard ends in .h5", out);
    ShardInfo info = {.vocab_size = tokenizer_vocab_size(job->tokenizer),
                      .eos_id = job->ends.eos_id};
    snprintf(info.tokenizer_sha256, sizeof info.tokenizer_sha256, "%s",
             tokenizer_sha256(job->tokenizer));
    describe_source(info.source, patterns, n_patterns);
    return shard_create(&job->writer, out, &info);
}

Status tokenize_files(TokenizeCounts *out, const TokenizeOptions *options, char *const *patterns,
                      int n_patterns)
{
    Job job = {.options = options,
               .text = {.field = options->text_field, .separator = options->separator}};
    PathList list = {0};
    Status status;
    if (n_patterns < 1)
        return fail(BAD_INPUT, "no text files are named");
    TRY_GOTO(release, paths_expand(&list, patterns, n_patterns));
    TRY_GOTO(release, check_files(&job, &list));
    TRY_GOTO(release, tokenizer_load(&job.tokenizer, options->tokenizer_dir));
    TRY_GOTO(release, choose_ends(&job));
    TRY_GOTO(release, create_shard(&job, patterns, n_patterns));
    for (int i = 0; i < list.count; i++)
        TRY_GOTO(release, add_file(&job, list.paths[i]));
    status = shard_finish(job.writer);
    job.writer = NULL;
    if (status == OK)
        *out = job.counts;
release:
    shard_abandon(job.writer);
    token_buffer_release(&job.buffer);
    tokenizer_release(job.tokenizer);
    paths_release(&list);
    return status;
}
