// Two hash tables with open addressing and linear probing, at most half full: tokens by their text,
// and merges by the pair of ids. Their sizes are powers of two, so a slot is a mask of the hash.
#define _GNU_SOURCE
#include "data/tokenizer/tokenizer_vocab.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

// Multiplicative hashing, eight bytes a step. The shifts bring the well-mixed high bits down to
// where the mask looks.
uint64_t vocab_hash(const char *text, int64_t size_bytes)
{
    const uint64_t odd = 0x9E3779B97F4A7C15u;
    uint64_t hash = (uint64_t)size_bytes * odd;
    while (size_bytes >= 8) {
        uint64_t eight;
        memcpy(&eight, text, 8);
        hash = (hash ^ eight) * odd;
        hash ^= hash >> 29;
        text += 8;
        size_bytes -= 8;
    }
    uint64_t rest = 0;
    for (int64_t i = 0; i < size_bytes; i++)
        rest = rest << 8 | (unsigned char)text[i];
    hash = (hash ^ rest) * odd;
    hash ^= hash >> 32;
    hash *= odd;
    return hash ^ hash >> 29;
}

// The slot of a text: the one that holds it, or the free one where it would go.
static int64_t vocab_slot(const Vocab *vocab, const char *text, int64_t size_bytes)
{
    int64_t slot = (int64_t)(vocab_hash(text, size_bytes) & (uint64_t)(vocab->n_slots - 1));
    for (; vocab->slots[slot] >= 0; slot = (slot + 1) & (vocab->n_slots - 1)) {
        const VocabToken *token = &vocab->tokens[vocab->slots[slot]];
        if (token->size_bytes == size_bytes && memcmp(token->text, text, (size_t)size_bytes) == 0)
            break;
    }
    return slot;
}

int32_t vocab_find(const Vocab *vocab, const char *text, int64_t size_bytes)
{
    return vocab->n_slots > 0 ? vocab->slots[vocab_slot(vocab, text, size_bytes)] : -1;
}

// Added tokens share the table but are not reached by merging.
int32_t vocab_find_in_model(const Vocab *vocab, const char *text, int64_t size_bytes)
{
    int32_t id = vocab_find(vocab, text, size_bytes);
    return id >= 0 && vocab->tokens[id].in_model ? id : -1;
}

// Makes the hash table large enough for one more token.
static Status grow_slots(Vocab *vocab)
{
    if (2 * ((int64_t)vocab->n_tokens + 1) <= vocab->n_slots)
        return OK;
    Vocab grown = *vocab;
    grown.n_slots = vocab->n_slots > 0 ? 2 * vocab->n_slots : 1024;
    grown.slots = malloc((size_t)grown.n_slots * sizeof *grown.slots);
    if (grown.slots == NULL)
        return fail(FAILED, "no memory for a vocabulary of %d tokens", (int)vocab->n_tokens);
    // All bytes FF: every slot is -1, free.
    memset(grown.slots, 0xFF, (size_t)grown.n_slots * sizeof *grown.slots);
    for (int32_t id = 0; id < vocab->n_ids; id++) {
        const VocabToken *token = &vocab->tokens[id];
        if (token->text != NULL)
            grown.slots[vocab_slot(&grown, token->text, token->size_bytes)] = id;
    }
    free(vocab->slots);
    *vocab = grown;
    return OK;
}

// Ids come in any order, so the array grows to the largest; ids without a token stay zeroed.
static Status grow_tokens(Vocab *vocab, int32_t id)
{
    if (id < vocab->capacity)
        return OK;
    int32_t capacity = 2 * vocab->capacity > id + 1 ? 2 * vocab->capacity : id + 1;
    VocabToken *tokens = realloc(vocab->tokens, (size_t)capacity * sizeof *tokens);
    if (tokens == NULL)
        return fail(FAILED, "no memory for a vocabulary of %d ids", (int)capacity);
    memset(tokens + vocab->capacity, 0, (size_t)(capacity - vocab->capacity) * sizeof *tokens);
    vocab->tokens = tokens;
    vocab->capacity = capacity;
    return OK;
}

Status vocab_add(Vocab *vocab, const char *where, const char *text, int64_t size_bytes, int64_t id,
                 bool in_model)
{
    if (id < 0 || id >= TOKENIZER_MAX_IDS)
        return fail(BAD_INPUT, "%s: token '%.100s' has id %lld, allowed are 0 to %d", where, text,
                    (long long)id, TOKENIZER_MAX_IDS - 1);
    if (vocab_find(vocab, text, size_bytes) >= 0)
        return fail(BAD_INPUT, "%s: token '%.100s' occurs twice", where, text);
    if (id < vocab->n_ids && vocab->tokens[id].text != NULL)
        return fail(BAD_INPUT, "%s: tokens '%.100s' and '%.100s' both have id %lld", where,
                    vocab->tokens[id].text, text, (long long)id);
    TRY(grow_slots(vocab));
    TRY(grow_tokens(vocab, (int32_t)id));
    char *copy = malloc((size_t)size_bytes + 1);
    if (copy == NULL)
        return fail(FAILED, "no memory for token '%.100s'", text);
    memcpy(copy, text, (size_t)size_bytes);
    copy[size_bytes] = '\0';
    vocab->tokens[id] =
        (VocabToken){.text = copy, .size_bytes = (int32_t)size_bytes, .in_model = in_model};
    // Only now in the table: slots compare texts through tokens[].
    vocab->slots[vocab_slot(vocab, text, size_bytes)] = (int32_t)id;
    vocab->n_tokens++;
    if (id >= vocab->n_ids)
        vocab->n_ids = (int32_t)id + 1;
    return OK;
}

// {"token": id, ...}: ids need not be dense, but none may be given twice.
static Status read_vocab(Vocab *vocab, const json_t *object, const char *where)
{
    if (!json_is_object(object))
        return fail(BAD_INPUT, "%s: the vocabulary is not an object of token: id", where);
    // jansson's iterators take the object without const, but do not change it.
    json_t *tokens = (json_t *)(uintptr_t)object;
    for (void *i = json_object_iter(tokens); i != NULL; i = json_object_iter_next(tokens, i)) {
        const char *text = json_object_iter_key(i);
        const json_t *id = json_object_iter_value(i);
        if (!json_is_integer(id))
            return fail(BAD_INPUT, "%s: the id of token '%.100s' is not a whole number", where,
                        text);
        TRY(vocab_add(vocab, where, text, (int64_t)strlen(text), json_integer_value(id), true));
    }
    if (vocab->n_tokens == 0)
        return fail(BAD_INPUT, "%s: the vocabulary is empty", where);
    return OK;
}

// Both ids in one number, hashed by a single multiplication: merging asks for every pair of a word.
static int64_t merge_slot(const Model *model, uint64_t pair)
{
    uint64_t hash = (pair ^ pair >> 29) * 0x9E3779B97F4A7C15u;
    int64_t slot = (int64_t)((hash ^ hash >> 32) & (uint64_t)(model->n_slots - 1));
    while (model->merges[slot].pair != MERGE_FREE && model->merges[slot].pair != pair)
        slot = (slot + 1) & (model->n_slots - 1);
    return slot;
}

const Merge *model_merge(const Model *model, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    const Merge *merge = &model->merges[merge_slot(model, pair)];
    return merge->pair != MERGE_FREE ? merge : NULL;
}

// Sizes both tables for `max_merges` merges. A merge's rank is its place in the list, so new_ids by
// rank gives what a heap entry stands for without its pair.
static Status start_merges(Model *model, int64_t max_merges)
{
    if (max_merges >= INT32_MAX)
        return fail(BAD_INPUT, "%lld merges, allowed are less than 2^31", (long long)max_merges);
    model->n_slots = 16;
    while (model->n_slots < 2 * max_merges)
        model->n_slots *= 2;
    model->merges = malloc((size_t)model->n_slots * sizeof *model->merges);
    model->new_ids = malloc((size_t)(max_merges + 1) * sizeof *model->new_ids);
    if (model->merges == NULL || model->new_ids == NULL)
        return fail(FAILED, "no memory for %lld merges", (long long)max_merges);
    for (int64_t i = 0; i < model->n_slots; i++)
        model->merges[i].pair = MERGE_FREE;
    return OK;
}

// A pair that is listed again takes the later rank, as in the library.
static Status add_merge(Model *model, const char *where, const char *left, int64_t left_bytes,
                        const char *right, int64_t right_bytes)
{
    Status status = OK;
    Bytes both = {0};
    TRY_GOTO(release, bytes_reserve(&both, left_bytes + right_bytes + 1)); // no NULL for two ""
    TRY_GOTO(release, bytes_append(&both, left, left_bytes));
    TRY_GOTO(release, bytes_append(&both, right, right_bytes));
    int32_t left_id = vocab_find(&model->vocab, left, left_bytes);
    int32_t right_id = vocab_find(&model->vocab, right, right_bytes);
    int32_t new_id = vocab_find(&model->vocab, both.data, both.size);
    if (left_id < 0 || right_id < 0 || new_id < 0) {
        const char *what = left_id < 0 ? "left part" : right_id < 0 ? "right part" : "result";
        status = fail(BAD_INPUT, "%s: merge %d, '%.*s' and '%.*s': the %s is not in the vocabulary",
                      where, (int)model->n_merges, (int)(left_bytes < 100 ? left_bytes : 100), left,
                      (int)(right_bytes < 100 ? right_bytes : 100), right, what);
        goto release;
    }
    uint64_t pair = (uint64_t)(uint32_t)left_id << 32 | (uint32_t)right_id;
    model->merges[merge_slot(model, pair)] = (Merge){pair, model->n_merges, new_id};
    model->new_ids[model->n_merges++] = new_id;
release:
    bytes_release(&both);
    return status;
}

// "left right", exactly one space. Lines that start with #version are comments.
static Status add_merge_line(Model *model, const char *where, const char *line, int64_t size)
{
    if (size >= 8 && memcmp(line, "#version", 8) == 0)
        return OK;
    const char *space = memchr(line, ' ', (size_t)size);
    const char *end = line + size;
    if (space == NULL || memchr(space + 1, ' ', (size_t)(end - space - 1)) != NULL)
        return fail(BAD_INPUT, "%s: merge %d, '%.*s', is not two tokens with one space between",
                    where, (int)model->n_merges, (int)(size < 100 ? size : 100), line);
    return add_merge(model, where, line, space - line, space + 1, end - space - 1);
}

// Two notations are in use: "a b", and since tokenizers 0.20 ["a", "b"], which allows spaces in
// tokens.
static Status read_merges(Model *model, const json_t *list, const char *where)
{
    if (!json_is_array(list))
        return fail(BAD_INPUT, "%s: 'merges' is missing or not a list", where);
    size_t n = json_array_size(list);
    TRY(start_merges(model, (int64_t)n));
    for (size_t i = 0; i < n; i++) {
        const json_t *merge = json_array_get(list, i);
        const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
        if (json_is_string(merge))
            TRY(add_merge_line(model, where, json_string_value(merge),
                               (int64_t)json_string_length(merge)));
        else if (json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right))
            TRY(add_merge(model, where, json_string_value(left), (int64_t)json_string_length(left),
                          json_string_value(right), (int64_t)json_string_length(right)));
        else
            return fail(BAD_INPUT, "%s: merge %zu is neither \"a b\" nor [\"a\", \"b\"]", where, i);
    }
    return OK;
}

// Settings that BPE files carry but none in use sets: "" and 0 mean that they are off.
static Status refuse_unless_empty(const json_t *object, const char *where, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_has(object, key) || (json_is_string(value) && json_string_length(value) == 0) ||
        (json_is_number(value) && json_number_value(value) == 0.0))
        return OK;
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    Status status = fail(BAD_INPUT, "%s: '%s' is %.100s, which is not supported", where, key,
                         text != NULL ? text : "?");
    free(text);
    return status;
}

Status model_read_json(Model *model, const json_t *object, const char *where)
{
    *model = (Model){.unk_id = -1};
    TRY(refuse_unless_empty(object, where, "dropout"));
    TRY(refuse_unless_empty(object, where, "continuing_subword_prefix"));
    TRY(refuse_unless_empty(object, where, "end_of_word_suffix"));
    TRY(json_get_bool_or(&model->fuse_unk, object, where, "fuse_unk", false));
    TRY(json_get_bool_or(&model->byte_fallback, object, where, "byte_fallback", false));
    TRY(json_get_bool_or(&model->ignore_merges, object, where, "ignore_merges", false));
    TRY(read_vocab(&model->vocab, json_object_get(object, "vocab"), where));
    if (json_has(object, "unk_token")) {
        const char *unk;
        TRY(json_get_string(&unk, object, where, "unk_token"));
        model->unk_id = vocab_find(&model->vocab, unk, (int64_t)strlen(unk));
        // An error only once a text needs it: byte-level models, which know every byte, name one
        // that is an added token alone, or none at all.
        if (model->unk_id < 0 && (model->missing_unk = strdup(unk)) == NULL)
            return fail(FAILED, "%s: no memory for unk_token", where);
    }
    return read_merges(model, json_object_get(object, "merges"), where);
}

Status model_read_files(Model *model, const json_t *vocab, const char *vocab_path,
                        const char *merges, int64_t merges_bytes, const char *merges_path)
{
    *model = (Model){.unk_id = -1};
    TRY(read_vocab(&model->vocab, vocab, vocab_path));
    if (utf8_valid_bytes(merges, merges_bytes) != merges_bytes)
        return fail(BAD_INPUT, "%s: not valid UTF-8", merges_path);
    if (merges_bytes == 0) // an empty file's map is NULL, which allows no arithmetic
        merges = "";
    const char *end = merges + merges_bytes;
    // Counted first, since the table of merges does not grow.
    int64_t n_lines = 1;
    for (const char *p = merges; p < end; p++)
        n_lines += *p == '\n';
    TRY(start_merges(model, n_lines));
    while (merges < end) {
        const char *newline = memchr(merges, '\n', (size_t)(end - merges));
        const char *stop = newline != NULL ? newline : end;
        int64_t size = stop - merges;
        if (newline != NULL && size > 0 && merges[size - 1] == '\r')
            size--;
        TRY(add_merge_line(model, merges_path, merges, size));
        merges = newline != NULL ? newline + 1 : end;
    }
    return OK;
}

static bool starts_with_mark(const VocabToken *token)
{
    return token->size_bytes >= 3 && memcmp(token->text, "\xE2\x96\x81", 3) == 0;
}

// True of the empty token too.
static bool only_marks(const VocabToken *token)
{
    int32_t i = 0;
    while (i + 3 <= token->size_bytes && memcmp(token->text + i, "\xE2\x96\x81", 3) == 0)
        i += 3;
    return i == token->size_bytes;
}

// True if every merge whose right token begins with U+2581 has nothing but U+2581 on its left, so
// that what stands before and after the beginning of such a run merges independently. U+2581 must
// be a token itself (an unknown would be fused with its neighbours).
static bool words_end_at_space(const Model *model)
{
    const Vocab *vocab = &model->vocab;
    if (model->byte_level || model->ignore_merges ||
        vocab_find_in_model(vocab, "\xE2\x96\x81", 3) < 0)
        return false;
    if (model->unk_id >= 0 && only_marks(&vocab->tokens[model->unk_id]))
        return false;
    for (int64_t i = 0; i < model->n_slots; i++) {
        const Merge *merge = &model->merges[i];
        if (merge->pair == MERGE_FREE)
            continue;
        if (starts_with_mark(&vocab->tokens[merge->pair & UINT32_MAX]) &&
            !only_marks(&vocab->tokens[merge->pair >> 32]))
            return false;
    }
    return true;
}

// Tables of what every word asks for: the token of each single byte, and of each fallback <0xNN>.
void model_finish(Model *model)
{
    for (int b = 0; b < 256; b++) {
        char character[2] = {(char)b, 0}, fallback[8];
        int length = model->byte_level ? byte_level_put((unsigned char)b, character) : 1;
        model->char_ids[b] = vocab_find_in_model(&model->vocab, character, length);
        snprintf(fallback, sizeof fallback, "<0x%02X>", b);
        model->fallback_ids[b] = vocab_find_in_model(&model->vocab, fallback, 6);
    }
    // Found from the merges rather than from the model's name: fine-tuned vocabularies may break
    // it.
    model->words_end_at_space = words_end_at_space(model);
}

// A model that failed to load half-way is released the same way: what was not reached is zero.
void vocab_model_release(Model *model)
{
    for (int32_t id = 0; id < model->vocab.n_ids; id++) {
        free(model->vocab.tokens[id].text);
        free(model->vocab.tokens[id].decoded);
    }
    free(model->vocab.tokens);
    free(model->vocab.slots);
    free(model->missing_unk);
    free(model->merges);
    free(model->new_ids);
    *model = (Model){0};
}
