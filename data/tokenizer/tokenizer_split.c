// Normalizer and pre-tokenizer: from a text to the words that are merged. The steps call each other
// for every piece they cut, depth first, so no list of pieces is ever built: memory does not depend
// on the length of the text.
#include "data/tokenizer/tokenizer_parts.h"

#include <string.h>

// The pattern cannot match the empty text (tokenizer_pattern.c), so `at` advances each time.
Status step_append_replaced(Bytes *out, PatternMatch *match, const TextStep *step, const char *text,
                            int64_t size)
{
    if (step->regex == NULL)
        return bytes_append_replaced(out, text, size, &step->pattern, &step->content);
    for (int64_t at = 0; at < size;) {
        int64_t start, end;
        TRY(pattern_find(step->regex, match, text, size, at, &start, &end));
        if (start < 0)
            return bytes_append(out, text + at, size - at);
        TRY(bytes_append(out, text + at, start - at));
        TRY(bytes_append(out, step->content.data, step->content.size));
        at = end;
    }
    return OK;
}

// One step of the normalizer, from a text to the end of `out`.
static Status normalize_step(TokenScratch *scratch, const TextStep *step, Bytes *out,
                             const char *text, int64_t size)
{
    switch (step->kind) {
    case STEP_PREPEND:
        TRY(bytes_append(out, step->content.data, step->content.size));
        return bytes_append(out, text, size);
    case STEP_NORMALIZE:
        return normal_append(out, &scratch->normal, step->form, text, size);
    default:
        return step_append_replaced(out, scratch->match, step, text, size);
    }
}

// Each step reads one buffer and writes the other; then they swap.
Status normalizer_apply(const Tokenizer *tokenizer, TokenScratch *scratch, const char *text,
                        int64_t size_bytes)
{
    Bytes *out = &scratch->normalized, *other = &scratch->normalized_other;
    out->size = 0;
    TRY(bytes_append(out, text, size_bytes));
    for (int i = 0; i < tokenizer->n_normalizer && out->size > 0; i++) {
        other->size = 0;
        TRY(normalize_step(scratch, &tokenizer->normalizer[i], other, out->data, out->size));
        TRY(bytes_check_growth(other, size_bytes));
        Bytes swap = *out;
        *out = *other;
        *other = swap;
    }
    return OK;
}

static Status split_piece(EncodeRun *run, int step, const char *text, int64_t size);

// What Split keeps back until it knows whether the next match or gap belongs to it.
typedef struct Pending {
    int64_t start, end; // empty: nothing
    bool is_match;      // of its last part
} Pending;

// Hands what was kept back to the next step, unless it is a match that Removed drops.
static Status emit_pending(EncodeRun *run, int step, const char *text, const Pending *pending)
{
    const SplitStep *split = &run->tokenizer->splits[step];
    bool removed = split->behavior == BEHAVIOR_REMOVED && pending->is_match;
    if (pending->end == pending->start || removed)
        return OK;
    return split_piece(run, step + 1, text + pending->start, pending->end - pending->start);
}

// The next match or gap, in the order of the text; none is empty.
static Status put_part(EncodeRun *run, int step, const char *text, int64_t start, int64_t end,
                       bool is_match, Pending *pending)
{
    bool joined = false;
    switch (run->tokenizer->splits[step].behavior) {
    case BEHAVIOR_ISOLATED:
    case BEHAVIOR_REMOVED:
        break;
    case BEHAVIOR_MERGED_WITH_PREVIOUS:
        joined = is_match && !pending->is_match;
        break;
    case BEHAVIOR_MERGED_WITH_NEXT:
        joined = !is_match && pending->is_match;
        break;
    case BEHAVIOR_CONTIGUOUS:
        joined = is_match == pending->is_match;
        break;
    }
    // An empty pending part has no kind: the first part never joins.
    if (!joined || pending->end == pending->start) {
        TRY(emit_pending(run, step, text, pending));
        pending->start = start;
    }
    pending->end = end;
    pending->is_match = is_match;
    return OK;
}

// Matches and the gaps between them, joined as the behavior says; a gap is what `invert` calls a
// match.
static Status split_by_behavior(EncodeRun *run, int step, const char *text, int64_t size)
{
    const SplitStep *split = &run->tokenizer->splits[step];
    Pending pending = {0};
    for (int64_t at = 0; at < size;) {
        int64_t start, end;
        TRY(pattern_find(split->pattern, run->scratch->match, text, size, at, &start, &end));
        if (start < 0)
            start = end = size;
        if (start > at)
            TRY(put_part(run, step, text, at, start, split->invert, &pending));
        if (end > start)
            TRY(put_part(run, step, text, start, end, !split->invert, &pending));
        at = end;
    }
    return emit_pending(run, step, text, &pending);
}

// Matches and gaps are pieces of their own: nothing to keep back.
static Status split_by_pattern(EncodeRun *run, int step, const char *text, int64_t size)
{
    const SplitStep *split = &run->tokenizer->splits[step];
    for (int64_t at = 0; at < size;) {
        int64_t start, end;
        TRY(pattern_find(split->pattern, run->scratch->match, text, size, at, &start, &end));
        if (start < 0)
            return split_piece(run, step + 1, text + at, size - at);
        if (start > at)
            TRY(split_piece(run, step + 1, text + at, start - at));
        TRY(split_piece(run, step + 1, text + start, end - start));
        at = end;
    }
    return OK;
}

// Marks are single characters, so a match at a byte is a match at a character.
static bool starts_with(const char *text, int64_t size, const Bytes *mark)
{
    return size >= mark->size && memcmp(text, mark->data, (size_t)mark->size) == 0;
}

// Spaces to marks, in the scratch's one buffer: a second Metaspace is refused at loading.
static Status split_metaspace(EncodeRun *run, int step, const char *text, int64_t size)
{
    const SplitStep *split = &run->tokenizer->splits[step];
    const Bytes space = {.data = (char[]){' '}, .size = 1}, *mark = &split->mark;
    Bytes *marked = &run->scratch->marked;
    marked->size = 0;
    // No mark where one stands already, or would once the space is replaced.
    bool prepend =
        split->prepend == PREPEND_ALWAYS || (split->prepend == PREPEND_FIRST && run->at_start);
    if (prepend && text[0] != ' ' && !starts_with(text, size, mark))
        TRY(bytes_append(marked, mark->data, mark->size));
    TRY(bytes_append_replaced(marked, text, size, &space, mark));
    text = marked->data;
    size = marked->size;
    if (!split->cut_at_marks)
        return split_piece(run, step + 1, text, size);
    // Each mark begins a piece.
    for (int64_t start = 0, at = 0; start < size; start = at) {
        for (at++; at < size && !starts_with(text + at, size - at, mark); at++)
            ;
        TRY(split_piece(run, step + 1, text + start, at - start));
    }
    return OK;
}

// Whether a character is numeric; PCRE2 is asked about those beyond ASCII only.
static Status is_numeric(EncodeRun *run, const SplitStep *split, const char *text, bool *numeric)
{
    unsigned char first = (unsigned char)text[0];
    *numeric = first >= '0' && first <= '9';
    if (first < 0x80)
        return OK;
    int64_t start, end;
    TRY(pattern_find(split->pattern, run->scratch->match, text, utf8_length(first), 0, &start,
                     &end));
    *numeric = start == 0;
    return OK;
}

// Cuts at the ends of runs of numeric and of other characters, and between numeric ones if each is
// a piece of its own.
static Status split_digits(EncodeRun *run, int step, const char *text, int64_t size)
{
    const SplitStep *split = &run->tokenizer->splits[step];
    int64_t start = 0;
    bool was_numeric = false;
    for (int64_t at = 0; at < size; at += utf8_length((unsigned char)text[at])) {
        bool numeric;
        TRY(is_numeric(run, split, text + at, &numeric));
        bool cut = numeric != was_numeric || (numeric && split->kind == SPLIT_EACH_DIGIT);
        if (cut && at > start) {
            TRY(split_piece(run, step + 1, text + start, at - start));
            start = at;
        }
        was_numeric = numeric;
    }
    return split_piece(run, step + 1, text + start, size - start);
}

// Text of one piece, not empty, that the steps before `step` have made.
static Status split_piece(EncodeRun *run, int step, const char *text, int64_t size)
{
    if (step == run->tokenizer->n_splits)
        return bpe_encode_piece(run, text, size);
    const SplitStep *split = &run->tokenizer->splits[step];
    if (split->add_prefix_space && text[0] != ' ') {
        // Only ByteLevel prefixes, and it is the last step: one buffer is enough.
        Bytes *prefixed = &run->scratch->prefixed;
        prefixed->size = 0;
        TRY(bytes_append(prefixed, " ", 1));
        TRY(bytes_append(prefixed, text, size));
        text = prefixed->data;
        size = prefixed->size;
    }
    switch (split->kind) {
    case SPLIT_NONE:
        return split_piece(run, step + 1, text, size);
    case SPLIT_EACH_DIGIT:
    case SPLIT_DIGIT_RUNS:
        return split_digits(run, step, text, size);
    case SPLIT_METASPACE:
        return split_metaspace(run, step, text, size);
    case SPLIT_PATTERN:
        break;
    }
    // The common case (GPT-2, Llama 3, Qwen) has a loop of its own, without the bookkeeping of
    // joins.
    if (split->behavior == BEHAVIOR_ISOLATED)
        return split_by_pattern(run, step, text, size);
    return split_by_behavior(run, step, text, size);
}

// Text between the added tokens that are searched before normalizing.
static Status split_normalized(EncodeRun *run, const char *text, int64_t size, bool at_start)
{
    const Tokenizer *tokenizer = run->tokenizer;
    TokenScratch *scratch = run->scratch;
    // The normalized text lives in the scratch until the next call; nothing below keeps a pointer
    // into it.
    if (tokenizer->n_normalizer > 0) {
        TRY(normalizer_apply(tokenizer, scratch, text, size));
        text = scratch->normalized.data;
        size = scratch->normalized.size;
    }
    AddedCursor cursor = {0};
    for (;;) {
        AddedMatch match;
        bool found;
        TRY(added_next(&tokenizer->added_normalized, scratch->match, text, size, &cursor, &match,
                       &found));
        if (!found)
            return OK;
        run->at_start = at_start && match.gap_start == 0; // for Metaspace's prepend_scheme "first"
        if (match.gap_end > match.gap_start)
            TRY(split_piece(run, 0, text + match.gap_start, match.gap_end - match.gap_start));
        if (match.id >= 0)
            TRY(token_buffer_append(run->out, match.id));
    }
}

// Added tokens that are not "normalized" are cut out of the raw text first, the others after the
// normalizer: the library's order.
Status split_text(EncodeRun *run, const char *text, int64_t size_bytes)
{
    AddedCursor cursor = {0};
    for (;;) {
        AddedMatch match;
        bool found;
        TRY(added_next(&run->tokenizer->added_raw, run->scratch->match, text, size_bytes, &cursor,
                       &match, &found));
        if (!found)
            return OK;
        if (match.gap_end > match.gap_start)
            TRY(split_normalized(run, text + match.gap_start, match.gap_end - match.gap_start,
                                 match.gap_start == 0));
        if (match.id >= 0)
            TRY(token_buffer_append(run->out, match.id));
    }
}
