// A piece of text into ids: cut into words that no merge can join, looked up in the cache, or
// merged with a priority queue. Merging repeats the library's algorithm step by step, stale queue
// entries included, so that ids agree for every merge list, consistent or not.
#include "data/tokenizer/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

// One cache line per word; what does not fit is merged again each time. Direct-mapped: a new word
// takes the place of the old one, so the cache is bounded and needs no upkeep.
enum { WORD_SLOTS = 1 << 15, WORD_BYTES = 30, WORD_IDS = 8 };

struct WordSlot {
    uint8_t size_bytes; // 0: free
    uint8_t n_ids;
    char text[WORD_BYTES];
    int32_t ids[WORD_IDS];
};

_Static_assert(sizeof(WordSlot) == 64, "a word is one cache line");

void bpe_scratch_release(TokenScratch *scratch)
{
    free(scratch->words);
    free(scratch->symbols);
    free(scratch->heap);
}

// A binary heap of rank << 32 | position: the smallest is the merge that was learned first, and of
// equal ones the leftmost, which is the order of BPE.
static Status heap_push(TokenScratch *scratch, int32_t rank, int64_t position)
{
    if (scratch->heap_size == scratch->heap_capacity) {
        int64_t capacity = scratch->heap_capacity > 0 ? 2 * scratch->heap_capacity : 64;
        uint64_t *heap = realloc(scratch->heap, (size_t)capacity * sizeof *heap);
        if (heap == NULL)
            return fail(FAILED, "no memory for %lld merges of a word", (long long)capacity);
        scratch->heap = heap;
        scratch->heap_capacity = capacity;
    }
    uint64_t entry = (uint64_t)(uint32_t)rank << 32 | (uint32_t)position;
    int64_t i = scratch->heap_size++;
    while (i > 0 && scratch->heap[(i - 1) / 2] > entry) {
        scratch->heap[i] = scratch->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    scratch->heap[i] = entry;
    return OK;
}

// The last entry takes the root's place and sinks: children are moved up until it fits.
static uint64_t heap_pop(TokenScratch *scratch)
{
    uint64_t *heap = scratch->heap, top = heap[0];
    int64_t size = --scratch->heap_size, i = 0;
    uint64_t last = heap[size];
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= size)
            break;
        if (child + 1 < size && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= last)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

// Puts a pair that merges into the heap, under the position of its left symbol.
static Status push_pair(const Model *model, TokenScratch *scratch, int64_t left, int64_t right)
{
    const Merge *merge = model_merge(model, scratch->symbols[left].id, scratch->symbols[right].id);
    return merge != NULL ? heap_push(scratch, merge->rank, left) : OK;
}

// A word may be as long as a text: a request to stop is looked for within it too.
enum { TURNS_PER_LOOK = 1 << 16 };

static Status check_stop(const TokenBuffer *out)
{
    return out->stop == NULL || *out->stop == 0 ? OK : fail(FAILED, "interrupted");
}

// Merges symbols [n] in place: lowest rank first, then leftmost. Symbols are a doubly linked list
// in an array, so a merge is O(1) and the heap makes a word O(n log n), where the textbook's search
// for the best pair is O(n^2).
static Status merge_symbols(const EncodeRun *run, int64_t n)
{
    const Model *model = &run->tokenizer->model;
    TokenScratch *scratch = run->scratch;
    Symbol *symbols = scratch->symbols;
    scratch->heap_size = 0;
    for (int64_t i = 0; i + 1 < n; i++) {
        if (i % TURNS_PER_LOOK == 0)
            TRY(check_stop(run->out));
        TRY(push_pair(model, scratch, i, i + 1));
    }
    for (int64_t turn = 0; scratch->heap_size > 0; turn++) {
        if (turn % TURNS_PER_LOOK == 0)
            TRY(check_stop(run->out));
        uint64_t top = heap_pop(scratch);
        int64_t position = (int64_t)(top & UINT32_MAX);
        Symbol *symbol = &symbols[position];
        if (symbol->id < 0 || symbol->next < 0) // merged to the left meanwhile, or last now
            continue;
        // An entry whose symbols changed is dropped unless the present ones make the same token.
        const Merge *merge = model_merge(model, symbol->id, symbols[symbol->next].id);
        int32_t new_id = model->new_ids[top >> 32];
        if (merge == NULL || merge->new_id != new_id)
            continue;
        Symbol *right = &symbols[symbol->next];
        symbol->id = new_id;
        symbol->next = right->next;
        right->id = -1;
        if (symbol->next >= 0)
            symbols[symbol->next].previous = (int32_t)position;
        if (symbol->previous >= 0)
            TRY(push_pair(model, scratch, symbol->previous, position));
        if (symbol->next >= 0)
            TRY(push_pair(model, scratch, position, symbol->next));
    }
    return OK;
}

// Links to both neighbours; the last link is corrected when the word is complete.
static void push_symbol(TokenScratch *scratch, int64_t *n, int32_t id)
{
    scratch->symbols[*n] = (Symbol){id, (int32_t)(*n - 1), (int32_t)(*n + 1)};
    ++*n;
}

// A character without a token of its own as its bytes' tokens; false if one of them is missing.
static bool push_bytes(const Model *model, TokenScratch *scratch, int64_t *n, const char *text,
                       int length)
{
    char mapped[2];
    if (model->byte_level) { // the character is the byte's stand-in
        length = byte_level_put((unsigned char)text[0], mapped);
        text = mapped;
    }
    for (int i = 0; i < length; i++)
        if (model->fallback_ids[(unsigned char)text[i]] < 0)
            return false;
    for (int i = 0; i < length; i++)
        push_symbol(scratch, n, model->fallback_ids[(unsigned char)text[i]]);
    return true;
}

// Single bytes, so all of ASCII, are looked up in a table; the others in the hash table.
static int32_t character_id(const Model *model, const char *text, int length)
{
    if (length == 1)
        return model->char_ids[(unsigned char)text[0]];
    return vocab_find_in_model(&model->vocab, text, length);
}

// The library fails here, too.
static Status refuse_unknown(const Model *model, const char *character)
{
    const uint32_t code = model->byte_level ? (unsigned char)character[0] : utf8_code(character);
    return fail(
        BAD_INPUT,
        "the text has %s%02X, which the tokenizer does not know, and its unk_token '%.100s' "
        "is not in the model's vocabulary",
        model->byte_level ? "byte 0x" : "U+", code, model->missing_unk);
}

// The word's characters as symbols, with unknown ones fused, dropped or as bytes. An unknown that
// waits to be fused stays behind byte tokens that follow it: the library's order.
static Status start_symbols(const Model *model, TokenScratch *scratch, const char *text,
                            int64_t size, int64_t *out_n)
{
    // A byte-level character falls back to up to two byte tokens.
    int64_t max_symbols = model->byte_level && model->byte_fallback ? 2 * size : size;
    if (max_symbols > INT32_MAX)
        return fail(BAD_INPUT, "word of %lld bytes; split it into smaller documents",
                    (long long)size);
    if (max_symbols > scratch->symbols_capacity) {
        Symbol *symbols = realloc(scratch->symbols, (size_t)max_symbols * sizeof *symbols);
        if (symbols == NULL)
            return fail(FAILED, "no memory for a word of %lld bytes", (long long)size);
        scratch->symbols = symbols;
        scratch->symbols_capacity = max_symbols;
    }
    int64_t n = 0;
    bool unknown = false;
    for (int64_t i = 0; i < size;) {
        int length = model->byte_level ? 1 : utf8_length((unsigned char)text[i]);
        int32_t id = character_id(model, text + i, length);
        if (id >= 0) {
            if (unknown)
                push_symbol(scratch, &n, model->unk_id);
            unknown = false;
            push_symbol(scratch, &n, id);
        } else if (!model->byte_fallback || !push_bytes(model, scratch, &n, text + i, length)) {
            if (model->missing_unk != NULL)
                return refuse_unknown(model, text + i);
            if (unknown && !model->fuse_unk)
                push_symbol(scratch, &n, model->unk_id);
            unknown = model->unk_id >= 0;
        }
        i += length;
    }
    if (unknown)
        push_symbol(scratch, &n, model->unk_id);
    // The last symbol's link would point past the end.
    if (n > 0)
        scratch->symbols[n - 1].next = -1;
    *out_n = n;
    return OK;
}

// The whole word as one token, for models that prefer it to merging; -1 if there is none.
static Status whole_word_id(const Model *model, TokenScratch *scratch, const char *text,
                            int64_t size, int32_t *out)
{
    if (model->byte_level) {
        Bytes *mapped = &scratch->mapped;
        mapped->size = 0;
        TRY(bytes_reserve(mapped, 2 * size));
        for (int64_t i = 0; i < size; i++)
            mapped->size += byte_level_put((unsigned char)text[i], mapped->data + mapped->size);
        text = mapped->data;
        size = mapped->size;
    }
    *out = vocab_find_in_model(&model->vocab, text, size);
    return OK;
}

// For words that are not in the cache. Llama 3's ignore_merges takes a word that is a
// token itself before any merge is tried.
static Status merge_word(EncodeRun *run, const char *text, int64_t size)
{
    const Model *model = &run->tokenizer->model;
    TokenScratch *scratch = run->scratch;
    TokenBuffer *out = run->out;
    if (model->ignore_merges) {
        int32_t id;
        TRY(whole_word_id(model, scratch, text, size, &id));
        if (id >= 0)
            return token_buffer_append(out, id);
    }
    int64_t n;
    TRY(start_symbols(model, scratch, text, size, &n));
    TRY(merge_symbols(run, n));
    TRY(token_buffer_reserve(out, n));
    for (int64_t i = 0; i < n; i++)
        if (scratch->symbols[i].id >= 0)
            out->ids[out->count++] = scratch->symbols[i].id;
    return OK;
}

// Few words make up most of a text, so most calls end in the cache: one line of memory is read.
static Status encode_word(EncodeRun *run, const char *text, int64_t size)
{
    TRY(check_stop(run->out));
    if (size > WORD_BYTES)
        return merge_word(run, text, size);
    TokenBuffer *out = run->out;
    WordSlot *slot = &run->scratch->words[vocab_hash(text, size) % WORD_SLOTS];
    if (slot->size_bytes == size && memcmp(slot->text, text, (size_t)size) == 0) {
        // Always eight ids: a copy of fixed size is two vector moves, and the rest is overwritten.
        TRY(token_buffer_reserve(out, WORD_IDS));
        memcpy(out->ids + out->count, slot->ids, sizeof slot->ids);
        out->count += slot->n_ids;
        return OK;
    }
    int64_t before = out->count;
    TRY(merge_word(run, text, size));
    // n_ids may be 0: a word of unknown characters in a model without unk_token.
    int64_t n_ids = out->count - before;
    if (n_ids <= WORD_IDS) {
        slot->size_bytes = (uint8_t)size;
        slot->n_ids = (uint8_t)n_ids;
        memcpy(slot->text, text, (size_t)size);
        if (n_ids > 0)
            memcpy(slot->ids, out->ids + before, (size_t)n_ids * sizeof *slot->ids);
    }
    return OK;
}

// U+2581, the lower one eighth block, stands for a space in sentencepiece's vocabularies.
static bool is_space_mark(const char *text, const char *end)
{
    return end - text >= 3 && memcmp(text, "\xE2\x96\x81", 3) == 0;
}

// Where no merge joins another character with U+2581 on its right, each run of U+2581 begins a word
// that merges on its own: a document becomes short words that the cache knows.
static Status encode_words(EncodeRun *run, const char *text, int64_t size)
{
    const char *end = text + size;
    while (text < end) {
        const char *p = text;
        while (is_space_mark(p, end))
            p += 3;
        while (p < end && !is_space_mark(p, end)) {
            // U+2581 is E2 96 81: memchr() for its first byte is faster than a look at each
            // character.
            const char *next = memchr(p + 1, 0xE2, (size_t)(end - p - 1));
            p = next != NULL ? next : end;
        }
        TRY(encode_word(run, text, p - text));
        text = p;
    }
    return OK;
}

Status bpe_encode_piece(EncodeRun *run, const char *text, int64_t size_bytes)
{
    TokenScratch *scratch = run->scratch;
    if (scratch->words == NULL) {
        scratch->words = calloc(WORD_SLOTS, sizeof *scratch->words);
        if (scratch->words == NULL)
            return fail(FAILED, "no memory for the tokenizer's word cache");
    } else if (scratch->serial != run->tokenizer->serial) { // the words are another tokenizer's
        memset(scratch->words, 0, WORD_SLOTS * sizeof *scratch->words);
    }
    scratch->serial = run->tokenizer->serial;
    if (run->tokenizer->model.words_end_at_space)
        return encode_words(run, text, size_bytes);
    return encode_word(run, text, size_bytes);
}
