// The tokenizer's patterns on PCRE2 with JIT, with the character classes of the `tokenizers`
// library: \s is Unicode's White_Space (PCRE2 adds U+180E), and \p{L}, \p{N} also hold the letters
// and numbers that came after the Unicode version of PCRE2 10.42 (14).
//
//     Pattern *pattern;
//     TRY(pattern_compile_regex(&pattern, PATTERN_GPT2));
//     TRY(pattern_find(pattern, match, text, size, from, &start, &end)); // start = -1: no match
//
// A Pattern is read-only and shared; a PatternMatch belongs to one thread.
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_PATTERN_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_PATTERN_H

#include "base/status.h"

#include <stdint.h>

typedef struct Pattern Pattern;
typedef struct PatternMatch PatternMatch;

// GPT-2's split, as the library's ByteLevel writes it.
#define PATTERN_GPT2                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

typedef enum CharClass {
    CLASS_NUMERIC, // Rust's char::is_numeric
    CLASS_WORD,    // Rust regex's \w
} CharClass;

// A regular expression of tokenizer.json (data/tokenizer/tokenizer_regex.h says which are
// supported), a text, one character of a class. A match is never empty: BAD_INPUT for patterns that
// could match nothing or do not compile.
Status pattern_compile_regex(Pattern **out, const char *regex);
Status pattern_compile_text(Pattern **out, const char *text);
Status pattern_compile_class(Pattern **out, CharClass class);
void pattern_release(Pattern *pattern); // NULL is fine

Status pattern_match_create(PatternMatch **out);
void pattern_match_release(PatternMatch *match); // NULL is fine

// First match in text [size] (valid UTF-8) at or after `from`; *start = -1 if there is none.
Status pattern_find(const Pattern *pattern, PatternMatch *match, const char *text, int64_t size,
                    int64_t from, int64_t *start, int64_t *end);

#endif
