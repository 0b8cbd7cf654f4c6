// Text of token ids that come one after another. The parts of the text are, joined, exactly what
// tokenizer_decode() makes of all ids at once, and each part is whole characters of UTF-8: bytes
// that later tokens may still change are held until they come.
//
//     TokenStream *stream;
//     TRY(token_stream_create(&stream, tokenizer, true));
//     Bytes text = {0};
//     TRY_GOTO(release, token_stream_push(stream, &text, &id, 1)); // appends what is decided
//     ...
//     TRY_GOTO(release, token_stream_finish(stream, &text));       // the rest
//     token_stream_release(stream);
//
// The tokenizer is borrowed. Errors are those of tokenizer_decode().
#ifndef MHA2MLA_DATA_TOKENIZER_TOKEN_STREAM_H
#define MHA2MLA_DATA_TOKENIZER_TOKEN_STREAM_H

#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_text.h"

typedef struct TokenStream TokenStream;

// skip_special as for tokenizer_decode().
Status token_stream_create(TokenStream **out, const Tokenizer *tokenizer, bool skip_special);

// Appends to `text` what ids [n], after those pushed before, decide.
Status token_stream_push(TokenStream *stream, Bytes *text, const int32_t *ids, int64_t n);

// Appends what was held. No push may follow.
Status token_stream_finish(TokenStream *stream, Bytes *text);

void token_stream_release(TokenStream *stream); // NULL is fine

#endif
