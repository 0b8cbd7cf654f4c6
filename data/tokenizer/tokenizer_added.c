// Added tokens in a text, as the library's double-array Aho-Corasick finds them with "leftmost
// longest": at each position the longest token that starts there. Here the tokens are sorted by
// their bytes and the range of candidates is narrowed byte by byte, so thousands of reserved tokens
// with a common beginning cost a few binary searches where they might start and nothing elsewhere.
#include "data/tokenizer/tokenizer_added.h"
#include "data/tokenizer/tokenizer_text.h"

#include <stdlib.h>
#include <string.h>

Status added_put(AddedSet *set, const AddedToken *token)
{
    if (set->n == set->capacity) {
        int capacity = set->capacity > 0 ? 2 * set->capacity : 16;
        AddedToken *tokens = realloc(set->tokens, (size_t)capacity * sizeof *tokens);
        if (tokens == NULL)
            return fail(FAILED, "no memory for %d added tokens", capacity);
        set->tokens = tokens;
        set->capacity = capacity;
    }
    set->tokens[set->n++] = *token;
    return OK;
}

// By bytes, a token before those it begins: a search that narrows a range meets shorter tokens
// first.
static int compare_tokens(const void *a, const void *b)
{
    const AddedToken *x = a, *y = b;
    int32_t shorter = x->size_bytes < y->size_bytes ? x->size_bytes : y->size_bytes;
    int order = memcmp(x->text, y->text, (size_t)shorter);
    return order != 0 ? order : (x->size_bytes > y->size_bytes) - (x->size_bytes < y->size_bytes);
}

Status added_finish(AddedSet *set)
{
    // Two normalized forms may coincide; which of the ids would win is undefined, so it is an
    // error.
    bool any_single_word = false;
    if (set->n > 0)
        qsort(set->tokens, (size_t)set->n, sizeof *set->tokens, compare_tokens);
    for (int i = 0; i < set->n; i++) {
        const AddedToken *token = &set->tokens[i];
        any_single_word = any_single_word || token->single_word;
        if (i > 0 && compare_tokens(token - 1, token) == 0)
            return fail(BAD_INPUT, "added tokens %d and %d are both searched as '%.100s'",
                        (int)token[-1].id, (int)token->id, token->text);
        set->first[(unsigned char)token->text[0] + 1] = i + 1;
    }
    // first[b] .. first[b + 1] - 1 are the tokens that begin with byte b: none where b begins none.
    for (int b = 1; b <= 256; b++)
        if (set->first[b] < set->first[b - 1])
            set->first[b] = set->first[b - 1];
    return any_single_word ? pattern_compile_class(&set->word_pattern, CLASS_WORD) : OK;
}

// Texts belong to the vocabulary.
void added_release(AddedSet *set)
{
    free(set->tokens);
    pattern_release(set->word_pattern);
    *set = (AddedSet){0};
}

// First of [low, high) whose byte `depth` is at least `byte`.
static int lower_bound(const AddedSet *set, int low, int high, int64_t depth, unsigned byte)
{
    while (low < high) {
        int middle = low + (high - low) / 2;
        if ((unsigned char)set->tokens[middle].text[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// The longest token at the beginning of text, or NULL.
static const AddedToken *longest_at(const AddedSet *set, const char *text, int64_t size)
{
    const AddedToken *best = NULL;
    int low = set->first[(unsigned char)text[0]], high = set->first[(unsigned char)text[0] + 1];
    // Invariant: tokens [low, high) agree with the text in their first `depth` bytes.
    for (int64_t depth = 1; low < high; depth++) {
        if (set->tokens[low].size_bytes == depth)
            best = &set->tokens[low++];
        if (depth == size)
            break;
        unsigned byte = (unsigned char)text[depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
    }
    return best;
}

// Where the character that ends at `end` starts: UTF-8 continuation bytes are 10xxxxxx.
static int64_t character_before(const char *text, int64_t end)
{
    int64_t start = end - 1;
    while (start > 0 && ((unsigned char)text[start] & 0xC0) == 0x80)
        start--;
    return start;
}

// Whether the character at text is one of \w, which the library decides by Unicode's tables.
static Status is_word_char(const AddedSet *set, PatternMatch *match, const char *text,
                           bool *is_word)
{
    int64_t start, end;
    TRY(pattern_find(set->word_pattern, match, text, utf8_length((unsigned char)text[0]), 0, &start,
                     &end));
    *is_word = start == 0;
    return OK;
}

// "single_word": a token counts only where no word character touches it.
static Status stands_alone(const AddedSet *set, PatternMatch *match, const char *text, int64_t size,
                           int64_t start, int64_t stop, bool *alone)
{
    bool word_before = false, word_after = false;
    if (start > 0)
        TRY(is_word_char(set, match, text + character_before(text, start), &word_before));
    if (stop < size)
        TRY(is_word_char(set, match, text + stop, &word_after));
    *alone = !word_before && !word_after;
    return OK;
}

// Finds the next token that may stand where it does; NULL at the end of the text.
static Status find_token(const AddedSet *set, PatternMatch *match, const char *text, int64_t size,
                         int64_t *search, const AddedToken **out)
{
    for (int64_t i = *search; i < size;) {
        unsigned char byte = (unsigned char)text[i];
        const AddedToken *token =
            set->first[byte] < set->first[byte + 1] ? longest_at(set, text + i, size - i) : NULL;
        if (token == NULL) {
            i++;
            continue;
        }
        int64_t stop = i + token->size_bytes;
        bool fits = true;
        if (token->single_word)
            TRY(stands_alone(set, match, text, size, i, stop, &fits));
        if (fits) {
            *search = stop;
            *out = token;
            return OK;
        }
        i = stop; // the library continues after a discarded match too, not within it
    }
    *search = size;
    *out = NULL;
    return OK;
}

Status added_next(const AddedSet *set, PatternMatch *match, const char *text, int64_t size_bytes,
                  AddedCursor *cursor, AddedMatch *out, bool *found)
{
    const AddedToken *token = NULL;
    *found = !cursor->finished;
    if (cursor->finished)
        return OK;
    if (set->n > 0)
        // Without added tokens the whole text is one gap.
        TRY(find_token(set, match, text, size_bytes, &cursor->search, &token));
    if (token == NULL) {
        cursor->finished = true;
        *out = (AddedMatch){cursor->emitted, size_bytes, -1};
        return OK;
    }
    // lstrip and rstrip: the token takes the white space around it, which then is in no piece.
    int64_t stop = cursor->search, start = stop - token->size_bytes;
    if (token->lstrip) {
        while (start > cursor->emitted) {
            int64_t before = character_before(text, start);
            if (!utf8_is_space(utf8_code(text + before)))
                break;
            start = before;
        }
    }
    if (token->rstrip) {
        while (stop < size_bytes && utf8_is_space(utf8_code(text + stop)))
            stop += utf8_length((unsigned char)text[stop]);
    }
    // A token may begin inside the spaces that the one before it took: then there is no gap.
    *out =
        (AddedMatch){cursor->emitted, start > cursor->emitted ? start : cursor->emitted, token->id};
    cursor->emitted = stop;
    return OK;
}
