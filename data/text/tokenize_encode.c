// The half of tokenization that every rank does: a text becomes ids.
#include "data/text/tokenize.h"

#include <string.h>

// An option that is not given is "auto".
static bool option_is(const char *choice, const char *word)
{
    return strcmp(choice != NULL ? choice : "auto", word) == 0;
}

// *out: whether the post-processor ends every text with `eos`. Tested on a short
// text rather than read from its template, since several kinds of post-processor add tokens.
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

static Status find_token(int32_t *out, const Encoder *encoder, const TokenizeOptions *options,
                         const char *option, const char *token)
{
    *out = tokenizer_find(encoder->tokenizer, token);
    if (*out < 0)
        return fail(BAD_INPUT, "--%s: the tokenizer in %s has no token '%.200s'", option,
                    options->tokenizer_dir, token);
    return OK;
}

// What goes before and after each text. The model must see the end of a document exactly once:
// neither run documents together nor end them twice.
static Status choose_ends(Encoder *encoder, const TokenizeOptions *options)
{
    encoder->add_special_tokens = option_is(options->bos, "auto");
    encoder->before = encoder->after = encoder->eos_id = -1;
    if (!option_is(options->bos, "auto") && !option_is(options->bos, "none"))
        TRY(find_token(&encoder->before, encoder, options, "bos", options->bos));
    if (option_is(options->eos, "none"))
        return OK;
    if (option_is(options->eos, "auto"))
        encoder->after = tokenizer_eos_id(encoder->tokenizer);
    else
        TRY(find_token(&encoder->after, encoder, options, "eos", options->eos));
    if (encoder->after < 0)
        return fail(BAD_INPUT,
                    "the tokenizer in %s names no token that ends a document; give one by --eos "
                    "TOKEN, or --eos none",
                    options->tokenizer_dir);
    encoder->eos_id = encoder->after;
    bool ends_already = false;
    if (encoder->add_special_tokens)
        TRY(ends_in_eos(&ends_already, encoder->tokenizer, encoder->after));
    if (ends_already)
        encoder->after = -1;
    return OK;
}

// The tokenizer is loaded by every rank, since encoding is what they share out.
Status encoder_open(Encoder *out, const TokenizeOptions *options)
{
    Encoder encoder = {.buffer.stop = options->stop};
    Status status;
    TRY_GOTO(close, tokenizer_load(&encoder.tokenizer, options->tokenizer_dir));
    TRY_GOTO(close, choose_ends(&encoder, options));
    *out = encoder;
    return OK;
close:
    encoder_close(&encoder);
    return status;
}

// -1 stands for no token.
static Status append_id(TokenBuffer *buffer, int32_t id)
{
    return id < 0 ? OK : token_buffer_append(buffer, id);
}

// One buffer per encoder is reused for every text; the documents receive a copy.
Status encoder_append(Encoder *encoder, Documents *out, const char *text, int64_t size_bytes)
{
    TokenBuffer *buffer = &encoder->buffer;
    buffer->count = 0;
    TRY(append_id(buffer, encoder->before));
    TRY(tokenizer_encode(encoder->tokenizer, buffer, text, size_bytes,
                         encoder->add_special_tokens));
    TRY(append_id(buffer, encoder->after));
    return documents_append(out, buffer->ids, buffer->count * (int64_t)sizeof *buffer->ids);
}

void encoder_close(Encoder *encoder)
{
    token_buffer_release(&encoder->buffer);
    tokenizer_release(encoder->tokenizer);
    *encoder = (Encoder){0};
}
