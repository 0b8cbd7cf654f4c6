// The steps of a decoder, from lists of strings to lists of strings. For data/tokenizer/ only; ids
// become text in data/tokenizer/token_stream.h.
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_DECODE_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_DECODE_H

#include "data/tokenizer/tokenizer_parts.h"

// A list of strings in two arrays: no allocation per token.
typedef struct Strings {
    Bytes bytes;   // owned; the strings one after another
    int64_t *ends; // owned
    int64_t n, capacity;
} Strings;

// The bytes that were appended since the last string are the next one.
Status strings_close(Strings *strings);
void strings_release(Strings *strings);

// What a step keeps between two parts of the tokens. Starts as {0} but for `fused`.
typedef struct DecodeState {
    bool fused;        // the input is pieces of one string: a step before was Fuse or ByteLevel
    Bytes held, whole; // owned; what later tokens decide; a fused string that is waited for
    int64_t n_strings; // Metaspace: strings so far
    int64_t n_cut;     // Strip of a fused string: how often its beginning was cut
} DecodeState;

// Appends to `out` what is decided of the strings so far; all of it if these are the last.
Status decode_step(Strings *out, const Strings *in, const TextStep *step, DecodeState *state,
                   bool is_last);

#endif
