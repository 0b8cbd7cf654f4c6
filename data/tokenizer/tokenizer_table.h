// The tables of a tokenizer as they are, for formats that hold it in another form.
//
//     TokenMerge *merges;
//     int32_t n_merges;
//     TRY(tokenizer_merges(&merges, &n_merges, tokenizer));
//     for (int32_t id = 0; id < tokenizer_vocab_size(tokenizer); id++)
//         put(tokenizer_entry(tokenizer, id).text);
//     free(merges);
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_TABLE_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_TABLE_H

#include "data/tokenizer/tokenizer.h"

typedef enum TokenKind {
    TOKEN_NONE,    // the id has no token
    TOKEN_NORMAL,  // of the vocabulary
    TOKEN_ADDED,   // searched in a text before it is split
    TOKEN_SPECIAL, // added, and no part of a text's words
} TokenKind;

typedef struct TokenEntry {
    const char *text; // borrowed: as the vocabulary writes it; NULL: TOKEN_NONE
    int32_t size_bytes;
    TokenKind kind;
} TokenEntry;

// Tokens `left` and `right` become `result`.
typedef struct TokenMerge {
    int32_t left, right, result;
} TokenMerge;

typedef struct TokenizerTraits {
    bool is_byte_level;     // words are bytes, each as a character of GPT-2's alphabet
    bool ignores_merges;    // a word that is a token is not merged
    bool has_byte_fallback; // characters without a token become <0xNN>, all of which are there
    bool marks_spaces;      // spaces become U+2581 (SentencePiece's way)
    bool puts_space;        // a text begins with a space that it did not have
    int32_t unk_id;         // -1: none
    int n_prefix, n_suffix; // tokens put around a text
    int32_t first_id;       // the first of them before it; -1: none
} TokenizerTraits;

// For ids below tokenizer_vocab_size().
TokenEntry tokenizer_entry(const Tokenizer *tokenizer, int32_t id);

// In the order in which they are tried; *out is the caller's.
Status tokenizer_merges(TokenMerge **out, int32_t *n, const Tokenizer *tokenizer);

// Whether the two tokens merge.
bool tokenizer_has_merge(const Tokenizer *tokenizer, int32_t left, int32_t right);

// The token of the vocabulary, but for those that are only added, with this text; -1: none.
int32_t tokenizer_find_part(const Tokenizer *tokenizer, const char *text, int32_t size_bytes);

// Step i of the way from a text to words, as a regular expression whose matches, and what is
// between them, are the words; NULL after the last. "": a step that is none.
const char *tokenizer_split_regex(const Tokenizer *tokenizer, int i);

TokenizerTraits tokenizer_traits(const Tokenizer *tokenizer);

#endif
