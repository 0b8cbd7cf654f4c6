// Regular expressions of tokenizer.json, which the `tokenizers` library gives to Oniguruma (Ruby
// syntax), rewritten for PCRE2. Taken is what both are known to read alike, once the character
// classes are spelled out; anything else is refused by name and place, never guessed.
//
//     Bytes rewritten = {0};
//     TRY(regex_rewrite(&rewritten, "\\p{N}{1,3}| ?\\p{L}+"));
//
// Taken: literals; \s \S \d \D \w \W, \p{L} and its like for Lu Ll Lt Lm Lo M N Nd P S Han Hangul
// Hiragana Katakana, \P{L} and \p{^L}; \t \n \r \f \v \a \e \xHH \x{H...} \uHHHH; [...] with
// ranges, classes inside it and &&; (...) (?:...) (?>...) (?i:...) and the four look-arounds; (?i)
// as the first of the pattern, a group or an alternative; | . \b \B $ ; * + ? and {n} {n,} {n,m},
// lazy as well, * + ? possessive as well.
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_REGEX_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_REGEX_H

#include "base/status.h"
#include "data/tokenizer/tokenizer_text.h"

// Appends the pattern for PCRE2_UTF | PCRE2_UCP. BAD_INPUT names what is not supported.
Status regex_rewrite(Bytes *out, const char *regex);

#endif
