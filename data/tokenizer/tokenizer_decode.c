// Ids into text: the tokens pass the decoder's steps as a list of strings, as in the library. Each
// step reads one list and writes another, and the two swap. Steps that look at one token at a time
// (Metaspace's first one, Strip) depend on how the list is divided, so it is kept until a Fuse.
#include "data/tokenizer/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

// A list of strings in two arrays: no allocation per token.
typedef struct Strings {
    Bytes bytes;   // owned; the strings one after another
    int64_t *ends; // owned
    int64_t n, capacity;
} Strings;

static void strings_release(Strings *strings)
{
    bytes_release(&strings->bytes);
    free(strings->ends);
    *strings = (Strings){0};
}

// The bytes that were appended since the last string are the next one.
static Status strings_close(Strings *strings)
{
    if (strings->n == strings->capacity) {
        int64_t capacity = strings->capacity > 0 ? 2 * strings->capacity : 64;
        int64_t *ends = realloc(strings->ends, (size_t)capacity * sizeof *ends);
        if (ends == NULL)
            return fail(FAILED, "no memory to decode %lld tokens", (long long)capacity);
        strings->ends = ends;
        strings->capacity = capacity;
    }
    strings->ends[strings->n++] = strings->bytes.size;
    return OK;
}

// String i; an empty list of bytes has no memory, but its strings are "".
static const char *string_at(const Strings *strings, int64_t i, int64_t *size)
{
    int64_t start = i > 0 ? strings->ends[i - 1] : 0;
    *size = strings->ends[i] - start;
    return strings->bytes.data != NULL ? strings->bytes.data + start : "";
}

// "Replace": within each string; a match across two is none.
static Status replace_step(Strings *out, const Strings *in, const TextStep *step)
{
    Status status = OK;
    PatternMatch *match = NULL;
    if (step->regex != NULL)
        TRY(pattern_match_create(&match));
    for (int64_t i = 0; i < in->n; i++) {
        int64_t size;
        const char *text = string_at(in, i, &size);
        TRY_GOTO(release, step_append_replaced(&out->bytes, match, step, text, size));
        TRY_GOTO(release, strings_close(out));
    }
release:
    pattern_match_release(match);
    return status;
}

// The first token loses its marks altogether, as in the library.
static Status metaspace_step(Strings *out, const Strings *in, const TextStep *step)
{
    const Bytes space = {.data = (char[]){' '}, .size = 1}, nothing = {0};
    for (int64_t i = 0; i < in->n; i++) {
        int64_t size;
        const char *text = string_at(in, i, &size);
        TRY(bytes_append_replaced(&out->bytes, text, size, &step->pattern,
                                  i == 0 && step->first ? &nothing : &space));
        TRY(strings_close(out));
    }
    return OK;
}

// Both cases, as Rust's from_str_radix takes them; -1 for anything else.
static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// The byte of "<0xNN>", or -1. Rust's number parser also takes a plus sign.
static int fallback_byte(const char *text, int64_t size)
{
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int high = text[3] == '+' ? 0 : hex_digit(text[3]), low = hex_digit(text[4]);
    return high >= 0 && low >= 0 ? 16 * high + low : -1;
}

// Closes a run of byte tokens: its text, or one U+FFFD for each byte if it is not valid UTF-8.
static Status flush_byte_run(Strings *out, Bytes *bytes)
{
    if (bytes->size == 0)
        return OK;
    if (utf8_valid_bytes(bytes->data, bytes->size) == bytes->size) {
        TRY(bytes_append(&out->bytes, bytes->data, bytes->size));
        TRY(strings_close(out));
    } else {
        for (int64_t i = 0; i < bytes->size; i++) {
            TRY(bytes_append(&out->bytes, "\xEF\xBF\xBD", 3));
            TRY(strings_close(out));
        }
    }
    bytes->size = 0;
    return OK;
}

// "ByteFallback": a run of tokens <0xNN> is one character or more, or what is left of them.
static Status byte_fallback_step(Strings *out, const Strings *in)
{
    Status status = OK;
    Bytes pending = {0};
    for (int64_t i = 0; i < in->n; i++) {
        int64_t size;
        const char *text = string_at(in, i, &size);
        int byte = fallback_byte(text, size);
        if (byte >= 0) {
            char c = (char)byte;
            TRY_GOTO(release, bytes_append(&pending, &c, 1));
            continue;
        }
        TRY_GOTO(release, flush_byte_run(out, &pending));
        TRY_GOTO(release, bytes_append(&out->bytes, text, size));
        TRY_GOTO(release, strings_close(out));
    }
    status = flush_byte_run(out, &pending);
release:
    bytes_release(&pending);
    return status;
}

// "Strip": at most `start` times from the beginning of each string and `stop` times from its end.
static Status strip_step(Strings *out, const Strings *in, const TextStep *step)
{
    const Bytes *cut = &step->content;
    for (int64_t i = 0; i < in->n; i++) {
        int64_t size;
        const char *text = string_at(in, i, &size);
        for (int64_t k = 0; k < step->start && size >= cut->size; k++) {
            if (memcmp(text, cut->data, (size_t)cut->size) != 0)
                break;
            text += cut->size;
            size -= cut->size;
        }
        for (int64_t k = 0; k < step->stop && size >= cut->size; k++) {
            if (memcmp(text + size - cut->size, cut->data, (size_t)cut->size) != 0)
                break;
            size -= cut->size;
        }
        TRY(bytes_append(&out->bytes, text, size));
        TRY(strings_close(out));
    }
    return OK;
}

// The bytes a token stands for; its text itself if a character is not of the byte-level alphabet.
static Status append_byte_level(Bytes *out, const char *text, int64_t size)
{
    int64_t before = out->size;
    TRY(bytes_reserve(out, size));
    for (int64_t i = 0; i < size; i += utf8_length((unsigned char)text[i])) {
        int byte = byte_level_byte(utf8_code(text + i));
        if (byte < 0) {
            out->size = before;
            return bytes_append(out, text, size);
        }
        out->data[out->size++] = (char)byte;
    }
    return OK;
}

// "ByteLevel": characters may be cut between tokens, so bytes are joined before they are decoded.
static Status byte_level_step(Strings *out, const Strings *in)
{
    Status status = OK;
    Bytes bytes = {0};
    for (int64_t i = 0; i < in->n; i++) {
        int64_t size;
        const char *text = string_at(in, i, &size);
        TRY_GOTO(release, append_byte_level(&bytes, text, size));
    }
    TRY_GOTO(release, utf8_append_repaired(&out->bytes, bytes.data, bytes.size));
    status = strings_close(out);
release:
    bytes_release(&bytes);
    return status;
}

// "Fuse": the list becomes one string, so that later steps see text and not tokens.
static Status fuse_step(Strings *out, const Strings *in)
{
    TRY(bytes_append(&out->bytes, in->bytes.data, in->bytes.size));
    return strings_close(out);
}

static Status run_step(Strings *out, const Strings *in, const TextStep *step)
{
    switch (step->kind) {
    case STEP_REPLACE:
        return replace_step(out, in, step);
    case STEP_BYTE_FALLBACK:
        return byte_fallback_step(out, in);
    case STEP_FUSE:
        return fuse_step(out, in);
    case STEP_STRIP:
        return strip_step(out, in, step);
    case STEP_BYTE_LEVEL:
        return byte_level_step(out, in);
    case STEP_METASPACE:
        return metaspace_step(out, in, step);
    case STEP_PREPEND:
    case STEP_NORMALIZE:
        break;
    }
    CHECK(false, "decoder step %d", (int)step->kind);
    return FAILED;
}

// The tokens' texts, as many strings as ids that have one.
// Without a decoder the library joins the tokens with spaces.
static Status collect(Strings *out, const Tokenizer *tokenizer, const int32_t *ids, int64_t n,
                      bool skip_special)
{
    const Vocab *vocab = &tokenizer->model.vocab;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= vocab->n_ids)
            continue;
        const VocabToken *token = &vocab->tokens[ids[i]];
        if (token->text == NULL || (skip_special && token->special))
            continue;
        if (!tokenizer->has_decoder && out->n > 0)
            TRY(bytes_append(&out->bytes, " ", 1));
        const char *text = token->decoded != NULL ? token->decoded : token->text;
        TRY(bytes_append(&out->bytes, text, (int64_t)strlen(text)));
        TRY(strings_close(out));
    }
    return OK;
}

Status tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, int64_t n, char **out_text,
                        int64_t *size, bool skip_special)
{
    Status status = OK;
    Strings strings = {0}, next = {0};
    TRY_GOTO(release, collect(&strings, tokenizer, ids, n, skip_special));
    const int64_t from_bytes = strings.bytes.size;
    // The output is held to a multiple of the input: replacements of a crafted file could double it
    // at every step.
    for (int i = 0; i < tokenizer->n_decoder; i++) {
        next.n = next.bytes.size = 0;
        TRY_GOTO(release, run_step(&next, &strings, &tokenizer->decoder[i]));
        TRY_GOTO(release, bytes_check_growth(&next.bytes, from_bytes));
        Strings swap = strings;
        strings = next;
        next = swap;
    }
    int64_t bytes = strings.bytes.size;
    TRY_GOTO(release, bytes_append(&strings.bytes, "", 1)); // the closing zero, not counted
    *size = bytes;
    *out_text = strings.bytes.data;
    strings.bytes = (Bytes){0};
release:
    strings_release(&strings);
    strings_release(&next);
    return status;
}
