// Loading, and the public functions. A tokenizer does not change after it is loaded: threads share
// it, and what encoding writes into is the scratch of each TokenBuffer.
#include "data/tokenizer/tokenizer.h"

#include "base/file.h"
#include "base/json.h"
#include "data/tokenizer/tokenizer_file.h"
#include "data/tokenizer/tokenizer_parts.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Status token_buffer_reserve(TokenBuffer *buffer, int64_t more)
{
    if (more <= buffer->capacity - buffer->count)
        return OK;
    // Doubling makes appending cost the same per id; 1024 ids hold most texts at once.
    int64_t capacity = buffer->count + more;
    if (capacity < 2 * buffer->capacity)
        capacity = 2 * buffer->capacity;
    if (capacity < 1024)
        capacity = 1024;
    int32_t *ids = realloc(buffer->ids, (size_t)capacity * sizeof *ids);
    if (ids == NULL)
        return fail(FAILED, "no memory for %lld tokens", (long long)capacity);
    buffer->ids = ids;
    buffer->capacity = capacity;
    return OK;
}

Status token_buffer_append(TokenBuffer *buffer, int32_t id)
{
    TRY(token_buffer_reserve(buffer, 1));
    buffer->ids[buffer->count++] = id;
    return OK;
}

// What encoding writes into, one per buffer and so per thread; buffers inside it grow on first use.
Status token_scratch_create(TokenScratch **out)
{
    TokenScratch *scratch = calloc(1, sizeof *scratch);
    if (scratch == NULL)
        return fail(FAILED, "no memory for the tokenizer's scratch");
    Status status;
    TRY_GOTO(free_scratch, pattern_match_create(&scratch->match));
    *out = scratch;
    return OK;
free_scratch:
    free(scratch);
    return status;
}

void token_scratch_release(TokenScratch *scratch)
{
    if (scratch == NULL)
        return;
    Bytes *all[] = {&scratch->repaired, &scratch->normalized, &scratch->normalized_other,
                    &scratch->prefixed, &scratch->marked,     &scratch->mapped};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        bytes_release(all[i]);
    normal_scratch_release(&scratch->normal);
    bpe_scratch_release(scratch);
    pattern_match_release(scratch->match);
    free(scratch);
}

void token_buffer_release(TokenBuffer *buffer)
{
    token_scratch_release(buffer->scratch);
    free(buffer->ids);
    *buffer = (TokenBuffer){0};
}

// "eos_token": "</s>" or {"content": "</s>", ...}; *out stays as it is if the file names no token
// of the vocabulary.
static void find_named(const Tokenizer *tokenizer, const json_t *root, int32_t *out)
{
    const json_t *value = json_object_get(root, "eos_token");
    if (json_is_object(value))
        value = json_object_get(value, "content");
    if (*out < 0 && json_is_string(value))
        *out = tokenizer_find(tokenizer, json_string_value(value));
}

// "eos_token_id": 1 or [1, 2], of which the first counts.
static Status find_numbered(const Tokenizer *tokenizer, const json_t *root, const char *path,
                            int32_t *out)
{
    const json_t *value = json_object_get(root, "eos_token_id");
    if (json_is_array(value))
        value = json_array_get(value, 0);
    if (*out >= 0 || !json_is_integer(value) || json_integer_value(value) < 0)
        return OK;
    int64_t id = json_integer_value(value);
    if (id >= tokenizer_vocab_size(tokenizer))
        return fail(BAD_INPUT, "%s: 'eos_token_id' is %lld, the tokenizer has ids 0 to %d", path,
                    (long long)id, tokenizer_vocab_size(tokenizer) - 1);
    *out = (int32_t)id;
    return OK;
}

// The id of the first of two tokens that is an added one, or -1. A word of the vocabulary that only
// looks like an end of text must not end documents.
static int32_t find_added(const Tokenizer *tokenizer, const char *first, const char *second)
{
    const char *names[] = {first, second};
    for (int i = 0; i < 2; i++) {
        int32_t id = tokenizer_find(tokenizer, names[i]);
        if (id >= 0 && tokenizer->model.vocab.tokens[id].added)
            return id;
    }
    return -1;
}

// tokenizer.json itself does not record which token ends a text. Files that name the token come
// before config.json, which only gives its id.
static Status find_eos(Tokenizer *tokenizer, const char *dir)
{
    const char *names[] = {"tokenizer_config.json", "special_tokens_map.json", "config.json"};
    tokenizer->eos_id = -1;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[PATH_BYTES];
        TRY(file_join(path, dir, names[i]));
        if (!file_exists(path))
            continue;
        json_t *root;
        TRY(json_read(&root, path));
        find_named(tokenizer, root, &tokenizer->eos_id);
        const Status status = find_numbered(tokenizer, root, path, &tokenizer->eos_id);
        json_decref(root);
        TRY(status);
    }
    if (tokenizer->eos_id < 0)
        tokenizer->eos_id = find_added(tokenizer, "</s>", "<|endoftext|>");
    return OK;
}

// vocab.json and merges.txt hold tokens and merges only. The rest is as transformers' GPT2Tokenizer
// has it: GPT-2's split, and <|endoftext|> as the one special token.
static Status set_gpt2_steps(Tokenizer *tokenizer)
{
    tokenizer->has_byte_level = tokenizer->has_decoder = true;
    tokenizer->n_splits = tokenizer->n_decoder = 1;
    tokenizer->decoder[0].kind = STEP_BYTE_LEVEL;
    tokenizer->splits[0].kind = SPLIT_PATTERN;
    TRY(pattern_compile_regex(&tokenizer->splits[0].pattern, PATTERN_GPT2));
    int32_t id = tokenizer_find(tokenizer, "<|endoftext|>");
    if (id < 0)
        return OK;
    VocabToken *token = &tokenizer->model.vocab.tokens[id];
    token->added = token->special = true;
    AddedToken added = {.text = token->text, .size_bytes = token->size_bytes, .id = id};
    return added_put(&tokenizer->added_raw, &added);
}

// GPT-2's own format, from before tokenizer.json; merges.txt is read through a map, line by line.
static Status read_gpt2_files(Tokenizer *tokenizer, const char *vocab_path, const char *merges_path)
{
    Status status;
    json_t *vocab;
    FileMap merges;
    TRY(json_read(&vocab, vocab_path));
    TRY_GOTO(free_vocab, file_map(&merges, merges_path));
    TRY_GOTO(unmap_merges,
             model_read_files(&tokenizer->model, vocab, vocab_path, (const char *)merges.bytes,
                              merges.size_bytes, merges_path));
    status = set_gpt2_steps(tokenizer);
unmap_merges:
    file_unmap(&merges);
free_vocab:
    json_decref(vocab);
    return status;
}

static Status read_files(Tokenizer *tokenizer, const char *dir)
{
    char path[PATH_BYTES], merges_path[PATH_BYTES];
    if (!file_is_dir(dir))
        return fail(BAD_INPUT, "%s: %s", dir,
                    file_exists(dir) ? "a file; name the directory that it is in"
                                     : "no such directory with a tokenizer");
    TRY(tokenizer_file_sha256(tokenizer->sha256, dir));
    TRY(file_join(path, dir, "tokenizer.json"));
    if (file_exists(path)) {
        TRY(tokenizer_json_read(tokenizer, path));
    } else {
        TRY(file_join(path, dir, "vocab.json"));
        TRY(file_join(merges_path, dir, "merges.txt"));
        if (!file_exists(path) || !file_exists(merges_path))
            return fail(BAD_INPUT, "%s: has neither tokenizer.json nor vocab.json and merges.txt",
                        dir);
        TRY(read_gpt2_files(tokenizer, path, merges_path));
    }
    tokenizer->model.byte_level = tokenizer->has_byte_level;
    model_finish(&tokenizer->model);
    Status status;
    TRY_GOTO(name_file, added_finish(&tokenizer->added_raw));
    TRY_GOTO(name_file, added_finish(&tokenizer->added_normalized));
    return find_eos(tokenizer, dir);
name_file:
    return fail_within(status, "%s", path);
}

// Tokens that an error quotes may hold line ends and other control characters.
static Status fail_in_one_line(Status status)
{
    char text[2048];
    snprintf(text, sizeof text, "%s", fail_text());
    for (char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7F)
            *p = '?';
    return fail(status, "%s", text);
}

Status tokenizer_load(Tokenizer **out, const char *dir)
{
    static _Atomic uint64_t next_serial = 1;
    Tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (tokenizer == NULL)
        return fail(FAILED, "%s: no memory for a tokenizer", dir);
    // Not the address: the next tokenizer may get that of a released one, and a scratch that was
    // used with the first would find its words in the cache.
    tokenizer->serial = atomic_fetch_add(&next_serial, 1);
    Status status = read_files(tokenizer, dir);
    if (status != OK) {
        tokenizer_release(tokenizer);
        return fail_in_one_line(status);
    }
    *out = tokenizer;
    return OK;
}

void tokenizer_release(Tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    vocab_model_release(&tokenizer->model);
    added_release(&tokenizer->added_raw);
    added_release(&tokenizer->added_normalized);
    steps_release(tokenizer);
    free(tokenizer);
}

static Status put_ids(TokenBuffer *out, const int32_t *ids, int n)
{
    TRY(token_buffer_reserve(out, n));
    for (int i = 0; i < n; i++)
        out->ids[out->count++] = ids[i];
    return OK;
}

static Status encode(EncodeRun *run, const char *text, int64_t size_bytes, bool add_special_tokens)
{
    const Tokenizer *tokenizer = run->tokenizer;
    // Everything below relies on valid UTF-8, PCRE2 included, which is told not to check it.
    if (utf8_valid_bytes(text, size_bytes) != size_bytes) {
        Bytes *repaired = &run->scratch->repaired;
        repaired->size = 0;
        TRY(utf8_append_repaired(repaired, text, size_bytes));
        text = repaired->data;
        size_bytes = repaired->size;
    }
    if (add_special_tokens)
        TRY(put_ids(run->out, tokenizer->prefix, tokenizer->n_prefix));
    if (size_bytes > 0)
        TRY(split_text(run, text, size_bytes));
    if (add_special_tokens)
        TRY(put_ids(run->out, tokenizer->suffix, tokenizer->n_suffix));
    return OK;
}

Status tokenizer_encode(const Tokenizer *tokenizer, TokenBuffer *out, const char *text,
                        int64_t size_bytes, bool add_special_tokens)
{
    CHECK(size_bytes >= 0, "text of %lld bytes", (long long)size_bytes);
    if (size_bytes > INT32_MAX)
        return fail(BAD_INPUT, "text of %lld bytes; split it into documents below 2 GiB",
                    (long long)size_bytes);
    if (out->scratch == NULL)
        TRY(token_scratch_create(&out->scratch));
    int64_t before = out->count;
    EncodeRun run = {.tokenizer = tokenizer, .scratch = out->scratch, .out = out};
    Status status = encode(&run, text, size_bytes, add_special_tokens);
    if (status != OK)
        out->count = before; // all of the text or nothing
    return status;
}

// The largest id plus one: ids may have gaps, and models size their embedding by it.
int tokenizer_vocab_size(const Tokenizer *tokenizer)
{
    return tokenizer->model.vocab.n_ids;
}

int32_t tokenizer_eos_id(const Tokenizer *tokenizer)
{
    return tokenizer->eos_id;
}

bool tokenizer_puts_begin(const Tokenizer *tokenizer)
{
    return tokenizer->n_prefix > 0;
}

const char *tokenizer_sha256(const Tokenizer *tokenizer)
{
    return tokenizer->sha256;
}

int32_t tokenizer_find(const Tokenizer *tokenizer, const char *token)
{
    return vocab_find(&tokenizer->model.vocab, token, (int64_t)strlen(token));
}
