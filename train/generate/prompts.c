#include "train/generate/prompts.h"

#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { READ_BYTES = 1 << 16, WHERE_BYTES = 512 };

#define TO_UTF8 "convert it to UTF-8, as iconv -f LATIN1 -t UTF-8 does with Latin-1"

void prompts_release(PromptList *list)
{
    for (int64_t i = 0; i < list->n; i++) {
        bytes_release(&list->items[i].text);
        json_decref(list->items[i].id);
        free(list->items[i].ids);
    }
    free(list->items);
    *list = (PromptList){0};
}

Status prompts_read(Bytes *out, const char *path)
{
    Status status = OK;
    Bytes bytes = {0};
    const bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = stdin;
    if (!is_stdin)
        TRY(file_open_stream(&file, path));
    for (;;) {
        TRY_GOTO(close, bytes_reserve(&bytes, READ_BYTES));
        const size_t n = fread(bytes.data + bytes.size, 1, READ_BYTES, file);
        bytes.size += (int64_t)n;
        if (n == 0)
            break;
    }
    if (ferror(file))
        status = fail(FAILED, "%s: cannot be read: %s", is_stdin ? "standard input" : path,
                      strerror(errno));
close:
    if (!is_stdin)
        fclose(file);
    if (status == OK)
        *out = bytes;
    else
        bytes_release(&bytes);
    return status;
}

static Status add_prompt(PromptList *list, const char *text, int64_t size_bytes, json_t *id,
                         int64_t line)
{
    if (list->n == list->capacity) {
        const int64_t capacity = list->capacity > 0 ? 2 * list->capacity : 1;
        Prompt *items = realloc(list->items, (size_t)capacity * sizeof *items);
        if (items == NULL)
            return fail(FAILED, "no memory for %lld prompts", (long long)capacity);
        list->items = items;
        list->capacity = capacity;
    }
    Prompt prompt = {.line = line};
    TRY(bytes_append(&prompt.text, text, size_bytes));
    prompt.id = json_incref(id);
    list->items[list->n++] = prompt;
    return OK;
}

Status prompts_parse_text(PromptList *out, const char *text, int64_t size_bytes, const char *where)
{
    const int64_t valid = utf8_valid_bytes(text, size_bytes);
    PromptList list = {.where = where};
    if (valid < size_bytes)
        return fail(BAD_INPUT, "%s: byte 0x%02X at offset %lld is not UTF-8; " TO_UTF8, where,
                    (unsigned char)text[valid], (long long)valid);
    TRY(add_prompt(&list, text, size_bytes, NULL, 0));
    *out = list;
    return OK;
}

static Status parse_line(PromptList *list, const char *bytes, int64_t size, int64_t line)
{
    json_error_t error;
    const int64_t valid = utf8_valid_bytes(bytes, size);
    if (valid < size)
        return fail(BAD_INPUT, "%s:%lld: byte 0x%02X at column %lld is not UTF-8; " TO_UTF8,
                    list->where, (long long)line, (unsigned char)bytes[valid],
                    (long long)valid + 1);
    json_t *root = json_loadb(bytes, (size_t)size, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (root == NULL)
        return fail(BAD_INPUT, "%s:%lld: not valid JSON at column %d: %s", list->where,
                    (long long)line, error.column, error.text);
    const json_t *text = json_is_object(root) ? json_object_get(root, "prompt") : root;
    const Status status =
        json_is_string(text)
            ? add_prompt(list, json_string_value(text), (int64_t)json_string_length(text),
                         json_object_get(root, "id"), line)
            : fail(BAD_INPUT,
                   "%s:%lld: neither a string nor an object with the string 'prompt'; write "
                   "{\"prompt\": \"...\"}",
                   list->where, (long long)line);
    json_decref(root);
    return status;
}

Status prompts_parse_jsonl(PromptList *out, const char *bytes, int64_t size_bytes, const char *path)
{
    Status status = OK;
    PromptList list = {.where = path};
    int64_t line = 0;
    for (int64_t at = 0; at < size_bytes;) {
        const char *end = memchr(bytes + at, '\n', (size_t)(size_bytes - at));
        const int64_t size = end != NULL ? end - (bytes + at) : size_bytes - at;
        line++;
        int64_t n_blank = 0;
        while (n_blank < size && strchr(" \t\r", bytes[at + n_blank]) != NULL &&
               bytes[at + n_blank] != '\0')
            n_blank++;
        if (n_blank < size)
            TRY_GOTO(release, parse_line(&list, bytes + at, size, line));
        at += size + 1;
    }
    if (list.n == 0)
        TRY_GOTO(release, fail(BAD_INPUT,
                               "%s: has no prompts; write one {\"prompt\": \"...\"} a "
                               "line",
                               path));
    *out = list;
    return OK;
release:
    prompts_release(&list);
    return status;
}

// ---- tokens
// --------------------------------------------------------------------------------------

static const char *name_prompt(char out[WHERE_BYTES], const PromptList *list, const Prompt *prompt)
{
    if (prompt->line > 0)
        snprintf(out, WHERE_BYTES, "%.400s:%lld", list->where, (long long)prompt->line);
    else
        snprintf(out, WHERE_BYTES, "%.400s", list->where);
    return out;
}

// With a template the text has all special tokens itself, so the tokenizer adds none.
static Status encode_text(TokenBuffer *buffer, const Prompt *prompt, const PromptEncoding *encoding)
{
    Status status;
    Bytes text = {0};
    const ChatTemplate *chat = encoding->chat;
    buffer->count = 0;
    if (chat == NULL) {
        if (encoding->puts_begin_id && encoding->begin_id >= 0)
            TRY(token_buffer_append(buffer, encoding->begin_id));
        return tokenizer_encode(encoding->tokenizer, buffer,
                                prompt->text.data != NULL ? prompt->text.data : "",
                                prompt->text.size, true);
    }
    TRY_GOTO(release, bytes_append(&text, chat->before, (int64_t)strlen(chat->before)));
    TRY_GOTO(release, bytes_append(&text, prompt->text.data, prompt->text.size));
    TRY_GOTO(release, bytes_append(&text, chat->after, (int64_t)strlen(chat->after)));
    status = tokenizer_encode(encoding->tokenizer, buffer, text.data, text.size, false);
release:
    bytes_release(&text);
    return status;
}

static Status check_ids(const TokenBuffer *buffer, const PromptEncoding *encoding,
                        const char *where)
{
    for (int64_t i = 0; i < buffer->count; i++)
        if (buffer->ids[i] >= encoding->vocab_size)
            return fail(BAD_INPUT,
                        "%s: token %lld has id %d, the model has ids 0 to %d: the tokenizer in %s "
                        "is another model's",
                        where, (long long)i + 1, (int)buffer->ids[i], encoding->vocab_size - 1,
                        encoding->model);
    if (buffer->count >= encoding->context)
        return fail(BAD_INPUT, "%s: the prompt has %lld tokens, %s; shorten it", where,
                    (long long)buffer->count, encoding->context_name);
    if (buffer->count + encoding->n_new > encoding->context)
        return fail(
            BAD_INPUT,
            "%s: the prompt has %lld tokens, which with %lld of --max-new-tokens are %lld, %s; "
            "shorten it or give --max-new-tokens %lld",
            where, (long long)buffer->count, (long long)encoding->n_new,
            (long long)(buffer->count + encoding->n_new), encoding->context_name,
            (long long)(encoding->context - buffer->count));
    return OK;
}

static Status encode_prompt(TokenBuffer *buffer, Prompt *prompt, const PromptEncoding *encoding,
                            const char *where)
{
    TRY(encode_text(buffer, prompt, encoding));
    if (buffer->count == 0 && encoding->begin_id >= 0)
        TRY(token_buffer_append(buffer, encoding->begin_id));
    if (buffer->count == 0)
        return fail(BAD_INPUT,
                    "%s: the prompt is empty, and %s names no token that a text begins with; "
                    "give at least one character",
                    where, encoding->model);
    TRY(check_ids(buffer, encoding, where));
    prompt->ids = malloc((size_t)buffer->count * sizeof *prompt->ids);
    if (prompt->ids == NULL)
        return fail(FAILED, "%s: no memory for %lld tokens", where, (long long)buffer->count);
    memcpy(prompt->ids, buffer->ids, (size_t)buffer->count * sizeof *prompt->ids);
    prompt->n_ids = buffer->count;
    return OK;
}

Status prompts_encode(PromptList *list, const PromptEncoding *encoding)
{
    Status status = OK;
    TokenBuffer buffer = {0};
    char where[WHERE_BYTES];
    for (int64_t i = 0; i < list->n; i++)
        TRY_GOTO(release, encode_prompt(&buffer, &list->items[i], encoding,
                                        name_prompt(where, list, &list->items[i])));
release:
    token_buffer_release(&buffer);
    return status;
}
