// Added tokens, searched in a text: leftmost, then longest.
//
//     AddedCursor cursor = {0};
//     for (;;) {
//         TRY(added_next(&set, match, text, size, &cursor, &part, &found));
//         if (!found)
//             break;
//         ... text[part.gap_start .. part.gap_end), then part.id unless it is -1
//     }
//
// The set is read-only after added_finish(); a PatternMatch belongs to one thread.
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_ADDED_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_ADDED_H

#include "base/status.h"
#include "data/tokenizer/tokenizer_pattern.h"

#include <stdint.h>

typedef struct AddedToken {
    const char *text; // what is searched, borrowed from the vocabulary
    int32_t size_bytes;
    int32_t id;
    bool single_word, lstrip, rstrip;
} AddedToken;

// The added tokens that are searched in one form of the text, in the order of their bytes.
typedef struct AddedSet {
    AddedToken *tokens; // owned
    int n, capacity;
    int first[257];        // tokens that start with byte b are [first[b], first[b + 1])
    Pattern *word_pattern; // owned; one word character; NULL without single_word tokens
} AddedSet;

typedef struct AddedMatch {
    int64_t gap_start, gap_end; // text before the token
    int32_t id;                 // -1: the rest of the text, no token
} AddedMatch;

typedef struct AddedCursor {
    int64_t search, emitted; // both start at 0
    bool finished;
} AddedCursor;

Status added_put(AddedSet *set, const AddedToken *token);
Status added_finish(AddedSet *set); // sorts; BAD_INPUT if two tokens are written the same
void added_release(AddedSet *set);
// The next token of the text, leftmost, then longest; false when all of the text was given.
Status added_next(const AddedSet *set, PatternMatch *match, const char *text, int64_t size_bytes,
                  AddedCursor *cursor, AddedMatch *out, bool *found);

#endif
