#include "model/gguf/gguf_vocabulary.h"

#include "base/log.h"
#include "data/tokenizer/tokenizer_chat.h"
#include "data/tokenizer/tokenizer_file.h"
#include "data/tokenizer/tokenizer_table.h"
#include "model/gguf/gguf_words.h"
#include "model/hf/special_tokens.h"

#include <stdlib.h>

// The format's types of tokens.
typedef enum TokenType {
    TYPE_NORMAL = 1,
    TYPE_UNKNOWN = 2,
    TYPE_CONTROL = 3,
    TYPE_USER_DEFINED = 4,
    TYPE_UNUSED = 5,
    TYPE_BYTE = 6,
} TokenType;

typedef struct Vocabulary {
    GgufMeta *meta;       // borrowed
    Tokenizer *tokenizer; // owned
    TokenizerTraits traits;
    const char *dir; // borrowed
    int n_tokens;    // written: rows of the embedding
    int n_ids;       // of the tokenizer
} Vocabulary;

// ---- tokens ------------------------------------------------------------------------------------

static bool is_byte_token(const TokenEntry *entry)
{
    unsigned byte;
    int end = 0;
    return entry->size_bytes == 6 && sscanf(entry->text, "<0x%2X>%n", &byte, &end) == 1 && end == 6;
}

static TokenType type_of(const Vocabulary *v, int32_t id)
{
    const TokenEntry entry =
        id < v->n_ids ? tokenizer_entry(v->tokenizer, id) : (TokenEntry){.kind = TOKEN_NONE};
    if (!v->traits.is_byte_level && id == v->traits.unk_id)
        return TYPE_UNKNOWN;
    switch (entry.kind) {
    case TOKEN_NONE:
        return TYPE_UNUSED;
    case TOKEN_SPECIAL:
        return TYPE_CONTROL;
    case TOKEN_ADDED:
        return TYPE_USER_DEFINED;
    case TOKEN_NORMAL:
        break;
    }
    return !v->traits.is_byte_level && is_byte_token(&entry) ? TYPE_BYTE : TYPE_NORMAL;
}

// Rows of the embedding without a token have names of their own, since no two may be the same.
static void put_tokens(const Vocabulary *v)
{
    gguf_put_array(v->meta, "tokenizer.ggml.tokens", GGUF_VALUE_TEXT, v->n_tokens);
    for (int32_t id = 0; id < v->n_tokens; id++) {
        char name[32];
        if (type_of(v, id) == TYPE_UNUSED) {
            gguf_add_text(v->meta, name, snprintf(name, sizeof name, "[PAD%d]", (int)id));
            continue;
        }
        const TokenEntry entry = tokenizer_entry(v->tokenizer, id);
        gguf_add_text(v->meta, entry.text, entry.size_bytes);
    }
    gguf_put_array(v->meta, "tokenizer.ggml.token_type", GGUF_VALUE_I32, v->n_tokens);
    for (int32_t id = 0; id < v->n_tokens; id++)
        gguf_add_i32(v->meta, (int32_t)type_of(v, id));
}

// In the file a merge is its two tokens with a space between, which a byte-level token does not
// have in it.
static Status put_merges(const Vocabulary *v)
{
    TokenMerge *merges;
    int32_t n_merges;
    TRY(tokenizer_merges(&merges, &n_merges, v->tokenizer));
    gguf_put_array(v->meta, "tokenizer.ggml.merges", GGUF_VALUE_TEXT, n_merges);
    for (int32_t i = 0; i < n_merges; i++) {
        const TokenEntry left = tokenizer_entry(v->tokenizer, merges[i].left);
        const TokenEntry right = tokenizer_entry(v->tokenizer, merges[i].right);
        gguf_add_pair(v->meta, left.text, left.size_bytes, right.text, right.size_bytes);
    }
    free(merges);
    return OK;
}

static Status put_byte_level(const Vocabulary *v)
{
    const char *words = gguf_words_name(v->tokenizer);
    if (v->traits.puts_space)
        return fail(BAD_INPUT,
                    "%s: its byte-level tokenizer puts a space before a text, which llama.cpp "
                    "does not do",
                    v->dir);
    if (words == NULL)
        return fail(BAD_INPUT,
                    "%s: its tokenizer splits a text into words in a way that --format gguf has "
                    "no name for; known are those of GPT-2, SmolLM, Llama 3, DBRX, Qwen2 and "
                    "DeepSeek-V3",
                    v->dir);
    gguf_put_text(v->meta, "tokenizer.ggml.model", "gpt2");
    gguf_put_text(v->meta, "tokenizer.ggml.pre", words);
    put_tokens(v);
    return put_merges(v);
}

// ---- SentencePiece -----------------------------------------------------------------------------

// Ranks of the merges that make each token.
typedef struct Ranks {
    int32_t *first, *last, *count; // owned in `first`, [n_ids] each; count 0: none makes it
    int32_t n_merges;
} Ranks;

static Status ranks_create(Ranks *out, const Vocabulary *v)
{
    TokenMerge *merges;
    Ranks ranks;
    TRY(tokenizer_merges(&merges, &ranks.n_merges, v->tokenizer));
    ranks.first = calloc((size_t)v->n_ids * 3, sizeof *ranks.first);
    if (ranks.first == NULL) {
        free(merges);
        return fail(FAILED, "%s: no memory for the ranks of %d tokens", v->dir, v->n_ids);
    }
    ranks.last = ranks.first + v->n_ids;
    ranks.count = ranks.last + v->n_ids;
    for (int32_t i = 0; i < ranks.n_merges; i++) {
        const int32_t id = merges[i].result;
        if (ranks.count[id]++ == 0)
            ranks.first[id] = i;
        ranks.last[id] = i;
    }
    free(merges);
    *out = ranks;
    return OK;
}

// Two tokens side by side that are `whole` together and yet do not merge.
static bool has_other_pair(const Vocabulary *v, const TokenEntry *whole)
{
    for (int32_t at = 1; at < whole->size_bytes; at++) {
        if (((unsigned char)whole->text[at] & 0xC0) == 0x80) // within a character
            continue;
        const int32_t left = tokenizer_find_part(v->tokenizer, whole->text, at);
        const int32_t right =
            tokenizer_find_part(v->tokenizer, whole->text + at, whole->size_bytes - at);
        if (left >= 0 && right >= 0 && !tokenizer_has_merge(v->tokenizer, left, right))
            return true;
    }
    return false;
}

// llama.cpp merges any two neighbours that are a token together, that of the highest score first.
// That is merging by rank, with the first rank of a token as its score, if every such pair merges
// here too and the merges of a token stand together in their list. Warns where it is not so.
static void warn_of_differences(const Vocabulary *v, const Ranks *ranks)
{
    int n_other = 0;
    for (int32_t id = 0; id < v->n_ids; id++) {
        const TokenEntry entry = tokenizer_entry(v->tokenizer, id);
        const bool is_apart =
            ranks->count[id] > 0 && ranks->last[id] - ranks->first[id] >= ranks->count[id];
        n_other += entry.kind == TOKEN_NORMAL && (is_apart || has_other_pair(v, &entry));
    }
    if (n_other > 0)
        log_warn("%s: llama.cpp makes %d of the tokenizer's %d tokens from other parts or in "
                 "another order, so some texts may get other tokens there",
                 v->dir, n_other, v->n_ids);
}

static void put_scores(const Vocabulary *v, const Ranks *ranks)
{
    gguf_put_array(v->meta, "tokenizer.ggml.scores", GGUF_VALUE_F32, v->n_tokens);
    for (int32_t id = 0; id < v->n_tokens; id++) {
        const bool is_merged = id < v->n_ids && ranks->count[id] > 0;
        gguf_add_f32(v->meta, -(float)(is_merged ? ranks->first[id] : ranks->n_merges));
    }
}

static Status put_sentencepiece(const Vocabulary *v)
{
    Ranks ranks;
    if (!v->traits.marks_spaces || !v->traits.has_byte_fallback)
        return fail(BAD_INPUT,
                    "%s: its tokenizer is neither byte-level nor SentencePiece's with tokens "
                    "<0x00> to <0xFF>, which are what llama.cpp has",
                    v->dir);
    TRY(ranks_create(&ranks, v));
    warn_of_differences(v, &ranks);
    gguf_put_text(v->meta, "tokenizer.ggml.model", "llama");
    gguf_put_text(v->meta, "tokenizer.ggml.pre", "default");
    put_tokens(v);
    put_scores(v, &ranks);
    gguf_put_bool(v->meta, "tokenizer.ggml.add_space_prefix", v->traits.puts_space);
    free(ranks.first);
    return OK;
}

// ---- special tokens and the chat template ------------------------------------------------------

// Ids that are no rows of the embedding are left out. llama.cpp takes token 11 for those that are
// missing, or 1 and 2, so the one of the other stands for it.
static void put_special(const Vocabulary *v)
{
    static const char *const keys[N_SPECIAL] = {
        [SPECIAL_BOS] = "tokenizer.ggml.bos_token_id",
        [SPECIAL_EOS] = "tokenizer.ggml.eos_token_id",
        [SPECIAL_PAD] = "tokenizer.ggml.padding_token_id",
    };
    int32_t ids[N_SPECIAL];
    special_tokens_find(ids, v->dir);
    for (int i = 0; i < N_SPECIAL; i++)
        ids[i] = ids[i] < v->n_tokens ? ids[i] : -1;
    if (v->traits.n_prefix > 0) // what is put before a text is the beginning there
        ids[SPECIAL_BOS] = v->traits.first_id;
    if (ids[SPECIAL_EOS] < 0)
        log_warn("%s: nothing says which token ends a text; llama.cpp goes on without an end",
                 v->dir);
    if (ids[SPECIAL_BOS] < 0)
        ids[SPECIAL_BOS] = ids[SPECIAL_EOS];
    if (ids[SPECIAL_EOS] < 0)
        ids[SPECIAL_EOS] = ids[SPECIAL_BOS];
    for (int i = 0; i < N_SPECIAL; i++)
        if (ids[i] >= 0)
            gguf_put_u32(v->meta, keys[i], ids[i]);
    if (v->traits.unk_id >= 0)
        gguf_put_u32(v->meta, "tokenizer.ggml.unknown_token_id", v->traits.unk_id);
    gguf_put_bool(v->meta, "tokenizer.ggml.add_bos_token", v->traits.n_prefix > 0);
    gguf_put_bool(v->meta, "tokenizer.ggml.add_eos_token", v->traits.n_suffix > 0);
}

static Status put_chat_template(const Vocabulary *v)
{
    char path[PATH_BYTES], *text;
    TRY(tokenizer_chat_template(&text, path, v->dir));
    if (text != NULL)
        gguf_put_text(v->meta, "tokenizer.chat_template", text);
    free(text);
    return OK;
}

// ---- the whole ---------------------------------------------------------------------------------

static Status put_tokenizer(const Vocabulary *v)
{
    if (v->n_ids > v->n_tokens)
        return fail(BAD_INPUT,
                    "%s: its tokenizer has ids up to %d, the model's embedding has %d rows; with "
                    "--format gguf there is a row for every token",
                    v->dir, v->n_ids - 1, v->n_tokens);
    if (v->traits.n_prefix > 1 || v->traits.n_suffix > 1)
        return fail(BAD_INPUT,
                    "%s: its tokenizer puts %d tokens before a text and %d after it, llama.cpp "
                    "one at most",
                    v->dir, v->traits.n_prefix, v->traits.n_suffix);
    TRY(v->traits.is_byte_level ? put_byte_level(v) : put_sentencepiece(v));
    put_special(v);
    return put_chat_template(v);
}

Status gguf_put_vocabulary(GgufMeta *meta, const char *dir, int vocab_size)
{
    char sha256[SHA256_HEX_BYTES] = "";
    if (dir != NULL)
        TRY(tokenizer_file_sha256(sha256, dir));
    if (sha256[0] == '\0') {
        log_warn("there is no tokenizer beside the model, so the file has none: llama.cpp runs it "
                 "on ids alone");
        gguf_put_text(meta, "tokenizer.ggml.model", "none");
        return OK;
    }
    Vocabulary vocabulary = {.meta = meta, .dir = dir, .n_tokens = vocab_size};
    TRY(tokenizer_load(&vocabulary.tokenizer, dir));
    vocabulary.traits = tokenizer_traits(vocabulary.tokenizer);
    vocabulary.n_ids = tokenizer_vocab_size(vocabulary.tokenizer);
    const Status status = put_tokenizer(&vocabulary);
    tokenizer_release(vocabulary.tokenizer);
    return status;
}
