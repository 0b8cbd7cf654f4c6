#include "data/tokenizer/tokenizer_table.h"

#include "data/tokenizer/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

static const char space_mark[] = "\xE2\x96\x81"; // U+2581

TokenEntry tokenizer_entry(const Tokenizer *tokenizer, int32_t id)
{
    const VocabToken *token = &tokenizer->model.vocab.tokens[id];
    if (token->text == NULL)
        return (TokenEntry){.kind = TOKEN_NONE};
    const TokenKind added = token->special ? TOKEN_SPECIAL : TOKEN_ADDED;
    return (TokenEntry){token->text, token->size_bytes, token->added ? added : TOKEN_NORMAL};
}

// The table of pairs is sorted by rank. A pair that is listed twice has the later rank, so ranks
// have gaps, which are closed.
Status tokenizer_merges(TokenMerge **out, int32_t *n, const Tokenizer *tokenizer)
{
    const Model *model = &tokenizer->model;
    TokenMerge *merges = malloc(((size_t)model->n_merges + 1) * sizeof *merges);
    int32_t count = 0;
    if (merges == NULL)
        return fail(FAILED, "no memory for %d merges", (int)model->n_merges);
    for (int32_t rank = 0; rank < model->n_merges; rank++)
        merges[rank].left = -1;
    for (int64_t i = 0; i < model->n_slots; i++) {
        const Merge *merge = &model->merges[i];
        if (merge->pair != MERGE_FREE)
            merges[merge->rank] = (TokenMerge){(int32_t)(merge->pair >> 32),
                                               (int32_t)(merge->pair & UINT32_MAX), merge->new_id};
    }
    for (int32_t rank = 0; rank < model->n_merges; rank++)
        if (merges[rank].left >= 0)
            merges[count++] = merges[rank];
    *out = merges;
    *n = count;
    return OK;
}

bool tokenizer_has_merge(const Tokenizer *tokenizer, int32_t left, int32_t right)
{
    return model_merge(&tokenizer->model, left, right) != NULL;
}

int32_t tokenizer_find_part(const Tokenizer *tokenizer, const char *text, int32_t size_bytes)
{
    return vocab_find_in_model(&tokenizer->model.vocab, text, size_bytes);
}

static const char *regex_of(const SplitStep *step, bool is_byte_level)
{
    const bool keeps_all = step->behavior == BEHAVIOR_ISOLATED
                               ? !step->invert
                               : step->behavior == BEHAVIOR_REMOVED && step->invert;
    switch (step->kind) {
    case SPLIT_NONE: // ByteLevel without its regular expression
        return NULL;
    case SPLIT_EACH_DIGIT:
        return "\\p{N}";
    case SPLIT_DIGIT_RUNS:
        return "\\p{N}+";
    case SPLIT_PATTERN:
        if (is_byte_level)
            return PATTERN_GPT2;
        return step->regex != NULL && keeps_all ? step->regex : "";
    case SPLIT_METASPACE:
        break;
    }
    return "";
}

const char *tokenizer_split_regex(const Tokenizer *tokenizer, int i)
{
    for (int step = 0; step < tokenizer->n_splits; step++) {
        // ByteLevel is the last step where there is one, and the one without a text of its own.
        const bool is_byte_level = tokenizer->has_byte_level && step == tokenizer->n_splits - 1;
        const char *regex = regex_of(&tokenizer->splits[step], is_byte_level);
        if (regex != NULL && i-- == 0)
            return regex;
    }
    return NULL;
}

static bool is_mark(const Bytes *bytes)
{
    return bytes->size == sizeof space_mark - 1 &&
           memcmp(bytes->data, space_mark, sizeof space_mark - 1) == 0;
}

static bool is_space(const Bytes *bytes)
{
    return bytes->size == 1 && bytes->data[0] == ' ';
}

TokenizerTraits tokenizer_traits(const Tokenizer *tokenizer)
{
    const Model *model = &tokenizer->model;
    TokenizerTraits traits = {.is_byte_level = model->byte_level,
                              .ignores_merges = model->ignore_merges,
                              .has_byte_fallback = model->byte_fallback,
                              .unk_id = model->unk_id,
                              .n_prefix = tokenizer->n_prefix,
                              .n_suffix = tokenizer->n_suffix,
                              .first_id = tokenizer->n_prefix > 0 ? tokenizer->prefix[0] : -1};
    for (int b = 0; b < 256; b++)
        traits.has_byte_fallback = traits.has_byte_fallback && model->fallback_ids[b] >= 0;
    for (int i = 0; i < tokenizer->n_normalizer; i++) {
        const TextStep *step = &tokenizer->normalizer[i];
        traits.puts_space =
            traits.puts_space || (step->kind == STEP_PREPEND && is_mark(&step->content));
        traits.marks_spaces =
            traits.marks_spaces || (step->kind == STEP_REPLACE && step->regex == NULL &&
                                    is_space(&step->pattern) && is_mark(&step->content));
    }
    for (int i = 0; i < tokenizer->n_splits; i++) {
        const SplitStep *split = &tokenizer->splits[i];
        const bool is_metaspace = split->kind == SPLIT_METASPACE && is_mark(&split->mark);
        traits.marks_spaces = traits.marks_spaces || is_metaspace;
        traits.puts_space = traits.puts_space || split->add_prefix_space ||
                            (is_metaspace && split->prepend != PREPEND_NEVER);
    }
    return traits;
}
