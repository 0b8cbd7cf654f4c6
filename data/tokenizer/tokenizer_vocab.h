// The BPE model's tables: tokens by id and by text, merges by pair.
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_VOCAB_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_VOCAB_H

#include "base/status.h"
#include "data/tokenizer/tokenizer_text.h"

#include <jansson.h>
#include <stdint.h>

// More than any known vocabulary (about a million), and a bound for what a damaged file can ask.
enum { TOKENIZER_MAX_IDS = 1 << 22 };

typedef struct VocabToken {
    char *text;    // owned; NULL if the id has no token
    char *decoded; // owned; what the decoder is given, if not text
    int32_t size_bytes;
    bool in_model; // merging knows it; false for tokens that are only added
    bool added, special;
} VocabToken;

typedef struct Vocab {
    VocabToken *tokens; // owned, [capacity]
    int32_t n_ids;      // highest id + 1
    int32_t n_tokens;
    int32_t capacity;
    int32_t *slots; // owned; open addressing, ids, -1 where free
    int64_t n_slots;
} Vocab;

typedef struct Merge {
    uint64_t pair; // left id << 32 | right id; MERGE_FREE where free
    int32_t rank;
    int32_t new_id;
} Merge;

#define MERGE_FREE UINT64_MAX

typedef struct Model {
    Vocab vocab;
    Merge *merges; // owned; open addressing
    int64_t n_slots;
    int32_t *new_ids; // owned, [n_merges]: what the merge of a rank makes
    int32_t n_merges;
    int32_t unk_id;    // -1: unknown characters are dropped, or refused:
    char *missing_unk; // owned: the unk_token that is not in the vocabulary; NULL: it is, or none
    bool fuse_unk, byte_fallback, ignore_merges;
    bool byte_level;         // words are bytes, each standing for its byte-level character
    bool words_end_at_space; // no merge crosses from another character into U+2581
    int32_t char_ids[256];   // byte level: token of each byte; else of each ASCII character; or -1
    int32_t fallback_ids[256]; // tokens <0x00> to <0xFF>, or -1
} Model;

uint64_t vocab_hash(const char *text, int64_t size_bytes);

// Adds a token under a new id. BAD_INPUT if id or text are taken; `where` names the source.
Status vocab_add(Vocab *vocab, const char *where, const char *text, int64_t size_bytes, int64_t id,
                 bool in_model);
int32_t vocab_find(const Vocab *vocab, const char *text, int64_t size_bytes); // -1: none
int32_t vocab_find_in_model(const Vocab *vocab, const char *text, int64_t size_bytes);

// The "model" object of tokenizer.json; vocab.json and the text of merges.txt.
Status model_read_json(Model *model, const json_t *object, const char *where);
Status model_read_files(Model *model, const json_t *vocab, const char *vocab_path,
                        const char *merges, int64_t merges_bytes, const char *merges_path);
// The tables that follow from the others; call it once byte_level is known.
void model_finish(Model *model);
void vocab_model_release(Model *model);

// NULL if the two do not merge.
const Merge *model_merge(const Model *model, int32_t left, int32_t right);

#endif
