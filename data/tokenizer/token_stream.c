// Ids into text: the tokens pass the decoder's steps (data/tokenizer/tokenizer_decode.h) as a list
// of strings, as in the library. Decoding all ids at once is a stream of one part, so that both
// give the same text.
#include "data/tokenizer/token_stream.h"

#include "data/tokenizer/tokenizer_decode.h"

#include <stdlib.h>
#include <string.h>

struct TokenStream {
    const Tokenizer *tokenizer; // borrowed
    bool skip_special;
    int64_t n_tokens;                        // that have a text
    int64_t from_bytes;                      // of these texts
    Strings strings, next;                   // owned; the input and output of a step
    DecodeState states[TOKENIZER_MAX_STEPS]; // [n_decoder], with owned bytes
};

Status token_stream_create(TokenStream **out, const Tokenizer *tokenizer, bool skip_special)
{
    TokenStream *stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        return fail(FAILED, "no memory to decode tokens");
    stream->tokenizer = tokenizer;
    stream->skip_special = skip_special;
    bool fused = false;
    for (int i = 0; i < tokenizer->n_decoder; i++) {
        const TextStepKind kind = tokenizer->decoder[i].kind;
        stream->states[i].fused = fused;
        fused = fused || kind == STEP_FUSE || kind == STEP_BYTE_LEVEL;
    }
    *out = stream;
    return OK;
}

void token_stream_release(TokenStream *stream)
{
    if (stream == NULL)
        return;
    for (int i = 0; i < stream->tokenizer->n_decoder; i++) {
        bytes_release(&stream->states[i].held);
        bytes_release(&stream->states[i].whole);
    }
    strings_release(&stream->strings);
    strings_release(&stream->next);
    free(stream);
}

// The tokens' texts, as many strings as ids that have one.
// Without a decoder the library joins the tokens with spaces.
static Status collect(TokenStream *stream, const int32_t *ids, int64_t n)
{
    const Tokenizer *tokenizer = stream->tokenizer;
    const Vocab *vocab = &tokenizer->model.vocab;
    Strings *strings = &stream->strings;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= vocab->n_ids)
            continue;
        const VocabToken *token = &vocab->tokens[ids[i]];
        if (token->text == NULL || (stream->skip_special && token->special))
            continue;
        if (!tokenizer->has_decoder && stream->n_tokens > 0)
            TRY(bytes_append(&strings->bytes, " ", 1));
        const char *text = token->decoded != NULL ? token->decoded : token->text;
        TRY(bytes_append(&strings->bytes, text, (int64_t)strlen(text)));
        TRY(strings_close(strings));
        stream->n_tokens++;
    }
    return OK;
}

// The strings' way through all steps, each of which may hold some back.
static Status decode_part(TokenStream *stream, Bytes *text, const int32_t *ids, int64_t n,
                          bool is_last)
{
    const Tokenizer *tokenizer = stream->tokenizer;
    Strings *strings = &stream->strings, *next = &stream->next;
    strings->n = strings->bytes.size = 0;
    TRY(collect(stream, ids, n));
    stream->from_bytes += strings->bytes.size;
    // The output is held to a multiple of the input: replacements of a crafted file could double it
    // at every step.
    for (int i = 0; i < tokenizer->n_decoder; i++) {
        next->n = next->bytes.size = 0;
        TRY(decode_step(next, strings, &tokenizer->decoder[i], &stream->states[i], is_last));
        TRY(bytes_check_growth(&next->bytes, stream->from_bytes));
        const Strings swap = *strings;
        *strings = *next;
        *next = swap;
    }
    return bytes_append(text, strings->bytes.data, strings->bytes.size);
}

Status token_stream_push(TokenStream *stream, Bytes *text, const int32_t *ids, int64_t n)
{
    return decode_part(stream, text, ids, n, false);
}

Status token_stream_finish(TokenStream *stream, Bytes *text)
{
    return decode_part(stream, text, NULL, 0, true);
}

Status tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, int64_t n, char **out_text,
                        int64_t *size, bool skip_special)
{
    Status status;
    TokenStream *stream;
    Bytes text = {0};
    TRY(token_stream_create(&stream, tokenizer, skip_special));
    TRY_GOTO(release, decode_part(stream, &text, ids, n, true));
    const int64_t bytes = text.size;
    TRY_GOTO(release, bytes_append(&text, "", 1)); // the closing zero, not counted
    *size = bytes;
    *out_text = text.data;
    text = (Bytes){0};
release:
    bytes_release(&text);
    token_stream_release(stream);
    return status;
}
