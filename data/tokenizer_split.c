// Normalizer and pre-tokenizer: from a text to the words that are merged.
#include "data/tokenizer_parts.h"

#include <string.h>

Status normalizer_apply(const TextStep *steps, int n_steps, Bytes *out, Bytes *other,
                        const char *text, int64_t size_bytes)
{
    out->size = 0;
    TRY(bytes_append(out, text, size_bytes));
    for (int i = 0; i < n_steps; i++) {
        const TextStep *step = &steps[i];
        if (out->size == 0)
            break;
        other->size = 0;
        if (step->kind == STEP_PREPEND) {
            TRY(bytes_append(other, step->content.data, step->content.size));
            TRY(bytes_append(other, out->data, out->size));
        } else {
            TRY(bytes_append_replaced(other, out->data, out->size, &step->pattern, &step->content));
        }
        Bytes swap = *out;
        *out = *other;
        *other = swap;
    }
    return OK;
}

static Status split_piece(EncodeRun *run, int step, const char *text, int64_t size);

static Status split_by_pattern(EncodeRun *run, int step, const char *text, int64_t size)
{
    const SplitStep *split = &run->tokenizer->splits[step];
    for (int64_t at = 0; at < size;) {
        int64_t start, end;
        TRY(pattern_find(split->pattern, run->scratch->match, text, size, at, &start, &end));
        if (start < 0)
            return split_piece(run, step + 1, text + at, size - at);
        CHECK(end > start, "split pattern matched nothing at byte %lld", (long long)start);
        if (start > at)
            TRY(split_piece(run, step + 1, text + at, start - at));
        TRY(split_piece(run, step + 1, text + start, end - start));
        at = end;
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
    if (split->kind == SPLIT_EACH_DIGIT || split->kind == SPLIT_DIGIT_RUNS)
        return split_digits(run, step, text, size);
    if (split->kind == SPLIT_NONE)
        return split_piece(run, step + 1, text, size);
    return split_by_pattern(run, step, text, size);
}

// Text between the added tokens that are searched before normalizing.
static Status split_normalized(EncodeRun *run, const char *text, int64_t size)
{
    const Tokenizer *tokenizer = run->tokenizer;
    TokenScratch *scratch = run->scratch;
    if (tokenizer->n_normalizer > 0) {
        TRY(normalizer_apply(tokenizer->normalizer, tokenizer->n_normalizer, &scratch->normalized,
                             &scratch->normalized_other, text, size));
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
        if (match.gap_end > match.gap_start)
            TRY(split_piece(run, 0, text + match.gap_start, match.gap_end - match.gap_start));
        if (match.id >= 0)
            TRY(token_buffer_append(run->out, match.id));
    }
}

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
            TRY(split_normalized(run, text + match.gap_start, match.gap_end - match.gap_start));
        if (match.id >= 0)
            TRY(token_buffer_append(run->out, match.id));
    }
}
