// The text of an answer as its tokens come: what they add to the prompt's text, up to the first
// stop string.
//
//     AnswerText text;
//     TRY(answer_text_start(&text, tokenizer, prompt, n_prompt, stops, n_stops));
//     TRY_GOTO(release, answer_text_push(&text, id)); // text.new_text [n_new] is certain now
//     if (text.stop.found >= 0) ...
//     TRY_GOTO(release, answer_text_finish(&text));   // again text.new_text
//     answer_text_release(&text);
//
// New text is whole characters. Joined, it is the text of prompt and answer decoded at once without
// special tokens, less the prompt's own text.
#ifndef MHA2MLA_INFER_ANSWER_TEXT_H
#define MHA2MLA_INFER_ANSWER_TEXT_H

#include "data/tokenizer/token_stream.h"
#include "infer/stop_text.h"

typedef struct AnswerText {
    TokenStream *stream; // owned
    StopText stop;       // stop.found: the stop string that ended the text, -1: none
    Bytes part;          // owned; what the last tokens decided
    char *prompt;        // owned: the prompt's text [prompt_bytes]
    int64_t prompt_bytes;
    int64_t n_skipped;    // bytes of it that the stream has given; prompt_bytes: the answer began
    const char *new_text; // borrowed, until the next call: text of the answer [n_new]
    int64_t n_new;
} AnswerText;

// The tokenizer and stop strings (infer/stop_text.h) are borrowed.
Status answer_text_start(AnswerText *out, const Tokenizer *tokenizer, const int32_t *prompt,
                         int64_t n_prompt, const char *const *stops, int n_stops);

Status answer_text_push(AnswerText *text, int32_t id);

// No more tokens come: the rest of the text, unless a stop string has ended it.
Status answer_text_finish(AnswerText *text);

void answer_text_release(AnswerText *text); // a zeroed one is allowed

#endif
