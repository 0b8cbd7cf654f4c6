// Growing bytes, UTF-8, and the byte-level alphabet of GPT-2.
//
//     Bytes text = {0};
//     TRY(bytes_append(&text, "abc", 3));
//     bytes_release(&text);
//
// Sizes stay below 2^31: bytes_append() says BAD_INPUT beyond, FAILED without memory.
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_TEXT_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_TEXT_H

#include "base/status.h"

#include <stdint.h>

typedef struct Bytes {
    char *data; // owned; NULL while empty
    int64_t size, capacity;
} Bytes;

Status bytes_reserve(Bytes *bytes, int64_t more);
Status bytes_append(Bytes *bytes, const char *data, int64_t size);
void bytes_release(Bytes *bytes);

// BAD_INPUT if `bytes` came from a text of so many bytes by steps that multiply it: no tokenizer in
// use does, and a chain of them could fill any memory from one character.
Status bytes_check_growth(const Bytes *bytes, int64_t from_bytes);

// Appends `text` with every occurrence of `pattern` (not empty) replaced by `content`.
Status bytes_append_replaced(Bytes *out, const char *text, int64_t size, const Bytes *pattern,
                             const Bytes *content);

// Length of the sequence at text[0], 1 to 4, if it is valid UTF-8; else minus the length of its
// maximal invalid part (Unicode 3.9, "substitution of maximal subparts").
int utf8_check(const char *text, int64_t size);

// Number of leading bytes that are valid UTF-8.
int64_t utf8_valid_bytes(const char *text, int64_t size);

// Number of leading bytes whose repaired text no further bytes can change: without a sequence at
// the end that is not valid, which one more byte may make a character.
int64_t utf8_decided_bytes(const char *text, int64_t size);

// Appends `text` with U+FFFD for each maximal invalid part.
Status utf8_append_repaired(Bytes *out, const char *text, int64_t size);

// For text that is valid: length of the character that starts with this byte; its code point.
int utf8_length(unsigned char first);
uint32_t utf8_code(const char *text);

// White_Space of Unicode.
bool utf8_is_space(uint32_t code);

// GPT-2's alphabet: each byte as a printable character of one or two bytes of UTF-8, and back
// (-1 if the code point is not of the alphabet).
int byte_level_put(unsigned char byte, char out[2]);
int byte_level_byte(uint32_t code);

#endif
