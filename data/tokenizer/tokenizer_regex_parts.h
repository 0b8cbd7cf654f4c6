// Inside the rewriting of regular expressions (tokenizer_regex.h): what its two files share.
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_REGEX_PARTS_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_REGEX_PARTS_H

#include "base/status.h"
#include "data/tokenizer/tokenizer_text.h"

enum { REGEX_MAX_DEPTH = 32 }; // of groups, and of classes in classes

typedef struct RegexGroup {
    bool caseless, is_look_around;
} RegexGroup;

typedef struct Rewrite {
    Bytes *out;
    const char *regex, *at;
    RegexGroup groups[REGEX_MAX_DEPTH]; // the whole is groups[0]
    int depth;
    int class_depth;
    bool is_at_start;     // of the pattern, of a group or of an alternative
    bool can_repeat;      // a quantifier may follow
    char caseless_before; // the letter that a caseless one would follow, or 0
} Rewrite;

// tokenizer_regex.c
// BAD_INPUT with what is not supported, the byte where it stands and what follows there.
Status regex_refuse(const Rewrite *r, const char *why);
Status regex_put(Rewrite *r, const char *text);
Status regex_put_literal(Rewrite *r); // one character at the cursor, escaped or not
bool regex_is_caseless(const Rewrite *r);

// tokenizer_regex_class.c
// A class written as an escape, \s or \p{L}, at the cursor outside [...]; *found: there is one.
Status regex_put_class_escape(Rewrite *r, bool *found);
// [...] at the cursor.
Status regex_put_class(Rewrite *r);

#endif
