// Prompt and answer pass one stream, as the first token of a text is decoded in its own way and
// bytes of a character may be on both sides of the border.
#include "infer/answer_text.h"

#include <stdlib.h>
#include <string.h>

Status answer_text_start(AnswerText *out, const Tokenizer *tokenizer, const int32_t *prompt,
                         int64_t n_prompt, const char *const *stops, int n_stops)
{
    Status status;
    AnswerText text = {0};
    TRY(stop_text_start(&text.stop, stops, n_stops));
    TRY_GOTO(release, token_stream_create(&text.stream, tokenizer, true));
    TRY_GOTO(release,
             tokenizer_decode(tokenizer, prompt, n_prompt, &text.prompt, &text.prompt_bytes, true));
    TRY_GOTO(release, token_stream_push(text.stream, &text.part, prompt, n_prompt));
    text.n_skipped = text.part.size < text.prompt_bytes ? text.part.size : text.prompt_bytes;
    *out = text;
    return OK;
release:
    answer_text_release(&text);
    return status;
}

void answer_text_release(AnswerText *text)
{
    token_stream_release(text->stream);
    stop_text_release(&text->stop);
    bytes_release(&text->part);
    free(text->prompt);
    *text = (AnswerText){0};
}

// Drops what is left of the prompt's text from the front of the part. An answer may change the end
// of the prompt's text, such as a run of bytes that is a character no more: then all that differs
// is the answer's.
static void skip_prompt(AnswerText *text, const char **bytes, int64_t *size)
{
    int64_t n = 0;
    while (n < *size && text->n_skipped + n < text->prompt_bytes &&
           (*bytes)[n] == text->prompt[text->n_skipped + n])
        n++;
    text->n_skipped = n < *size ? text->prompt_bytes : text->n_skipped + n;
    while (n > 0 && n < *size && ((unsigned char)(*bytes)[n] & 0xC0) == 0x80)
        n--; // whole characters
    *bytes += n;
    *size -= n;
}

// Passes on what the last tokens have decided.
static Status take_part(AnswerText *text, bool is_last)
{
    const char *bytes = text->part.data;
    int64_t size = text->part.size;
    if (text->n_skipped < text->prompt_bytes)
        skip_prompt(text, &bytes, &size);
    TRY(stop_text_push(&text->stop, bytes, size, is_last));
    text->new_text = text->stop.bytes;
    text->n_new = text->stop.n_ready;
    return OK;
}

Status answer_text_push(AnswerText *text, int32_t id)
{
    text->part.size = 0;
    TRY(token_stream_push(text->stream, &text->part, &id, 1));
    return take_part(text, false);
}

Status answer_text_finish(AnswerText *text)
{
    text->part.size = 0;
    TRY(token_stream_finish(text->stream, &text->part));
    return take_part(text, true);
}
