// tokenizer.json into tables and steps. What is not understood is refused by name and value: an
// ignored key would mean other ids than the model was trained with.
#include "data/tokenizer/tokenizer_parts.h"

#include "base/file.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

// `keys` is a list with a space before and after each name.
Status tokenizer_only_keys(const json_t *object, const char *where, const char *keys)
{
    if (!json_is_object(object))
        return fail(BAD_INPUT, "%s: not an object", where);
    json_t *members = (json_t *)(uintptr_t)object; // jansson's iterators do not change it
    for (void *i = json_object_iter(members); i != NULL; i = json_object_iter_next(members, i)) {
        const char *key = json_object_iter_key(i);
        const char *found = strstr(keys, key);
        size_t length = strlen(key);
        // A key may also be part of a longer name, found before its own place.
        bool known = found != NULL && length > 0 && strchr(key, ' ') == NULL;
        while (known && (found[-1] != ' ' || found[length] != ' ')) {
            found = strstr(found + 1, key);
            known = found != NULL;
        }
        if (!known)
            return fail(BAD_INPUT, "%s: key '%.100s' is not supported", where, key);
    }
    return OK;
}

// What is searched for an added token: its text or, if "normalized", that through the normalizer.
static Status set_searched_text(const Tokenizer *t, VocabToken *token, AddedToken *added)
{
    Status status;
    TokenScratch *scratch;
    TRY(token_scratch_create(&scratch));
    TRY_GOTO(release, normalizer_apply(t, scratch, token->text, token->size_bytes));
    Bytes normalized = scratch->normalized;
    if (normalized.size == 0) {
        status = fail(BAD_INPUT, "added token '%.100s' is empty after the normalizer", token->text);
        goto release;
    }
    if (normalized.size != token->size_bytes ||
        memcmp(normalized.data, token->text, (size_t)normalized.size) != 0) {
        // The library decodes such a token to its normalized text, too.
        TRY_GOTO(release, bytes_append(&scratch->normalized, "", 1)); // the closing zero
        token->decoded = scratch->normalized.data;
        added->text = token->decoded;
        added->size_bytes = (int32_t)normalized.size;
        scratch->normalized = (Bytes){0}; // the token owns it now
    }
release:
    token_scratch_release(scratch);
    return status;
}

// The id the library gives a token: the model's, else the next free one.
static Status place_added_token(Tokenizer *t, const char *where, const char *text, int64_t id,
                                int64_t *next_id)
{
    Vocab *vocab = &t->model.vocab;
    int64_t size = (int64_t)strlen(text);
    int32_t known = vocab_find(vocab, text, size);
    if (known >= 0 && known != id)
        return fail(BAD_INPUT, "%s: '%.100s' has id %lld, but %d in the vocabulary", where, text,
                    (long long)id, (int)known);
    if (known >= 0 && vocab->tokens[known].added)
        return fail(BAD_INPUT, "%s: '%.100s' occurs twice", where, text);
    if (known >= 0)
        return OK;
    if (id != *next_id)
        return fail(BAD_INPUT, "%s: '%.100s' has id %lld, but the next free id is %lld", where,
                    text, (long long)id, (long long)*next_id);
    ++*next_id;
    return vocab_add(vocab, where, text, size, id, false);
}

static Status read_added_token(Tokenizer *t, const json_t *object, const char *where,
                               int64_t *next_id)
{
    const char *text;
    int64_t id;
    bool normalized, special;
    AddedToken added = {0};
    TRY(tokenizer_only_keys(object, where,
                            " id content single_word lstrip rstrip normalized special "));
    TRY(json_get_string(&text, object, where, "content"));
    TRY(json_get_int(&id, object, where, "id", 0, TOKENIZER_MAX_IDS - 1));
    TRY(json_get_bool(&added.single_word, object, where, "single_word"));
    TRY(json_get_bool(&added.lstrip, object, where, "lstrip"));
    TRY(json_get_bool(&added.rstrip, object, where, "rstrip"));
    TRY(json_get_bool(&normalized, object, where, "normalized"));
    TRY(json_get_bool(&special, object, where, "special"));
    if (text[0] == '\0') // the library drops it
        return OK;
    TRY(place_added_token(t, where, text, id, next_id));
    VocabToken *token = &t->model.vocab.tokens[id];
    token->added = true;
    token->special = special;
    added.text = token->text;
    added.size_bytes = token->size_bytes;
    added.id = (int32_t)id;
    if (normalized) { // searched after the normalizer, so in its form
        Status status = set_searched_text(t, token, &added);
        if (status != OK)
            return fail_within(status, "%s", where);
    }
    return added_put(normalized ? &t->added_normalized : &t->added_raw, &added);
}

// Ids after the model's must be dense and in order: the library numbers them itself and ignores the
// file where they are not.
static Status read_added_tokens(Tokenizer *t, const json_t *list, const char *where)
{
    if (!json_is_array(list))
        return fail(BAD_INPUT, "%s: not a list", where);
    int64_t next_id = t->model.vocab.n_tokens;
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(read_added_token(t, json_array_get(list, i), where, &next_id));
    return OK;
}

// Truncation and padding belong to a use, not to a tokenizer; documents are always encoded whole.
// Both would change the ids: truncation drops tokens, padding adds some.
static Status refuse_fixed_sizes(const json_t *root, const char *path)
{
    const char *keys[] = {"truncation", "padding"};
    for (int i = 0; i < 2; i++)
        if (json_has(root, keys[i]))
            return fail(BAD_INPUT, "%s: '%s' is set; documents are encoded whole, set it to null",
                        path, keys[i]);
    return OK;
}

typedef Status (*ReadPart)(Tokenizer *t, const json_t *object, const char *where);

// Unigram, WordPiece and WordLevel need other algorithms, and Llama-family models use BPE. A model
// without a type, as GPT-2's file has it, is of the kind whose members it has: merges are BPE's.
static Status read_model(Tokenizer *t, const json_t *object, const char *where)
{
    const char *type = "BPE";
    if (json_object_get(object, "type") != NULL)
        TRY(json_get_string(&type, object, where, "type"));
    else if (!json_has(object, "merges"))
        return fail(BAD_INPUT,
                    "%s: has neither a 'type' nor the 'merges' of BPE, which alone is supported",
                    where);
    if (strcmp(type, "BPE") != 0)
        return fail(BAD_INPUT, "%s: type '%.100s' is not supported; only BPE is", where, type);
    TRY(tokenizer_only_keys(object, where,
                            " type dropout unk_token continuing_subword_prefix end_of_word_suffix "
                            "fuse_unk byte_fallback ignore_merges vocab merges "));
    return model_read_json(&t->model, object, where);
}

// In the order in which they need each other: added tokens are passed through the normalizer and
// get the ids after the model's, the post-processor names tokens by their ids.
static const struct {
    const char *key;
    ReadPart read;
} parts[] = {
    {"model", read_model},
    {"normalizer", steps_read_normalizer},
    {"pre_tokenizer", steps_read_pre_tokenizer},
    {"added_tokens", read_added_tokens},
    {"post_processor", steps_read_post_processor},
    {"decoder", steps_read_decoder},
};

static Status read_root(Tokenizer *t, const json_t *root, const char *path)
{
    TRY(tokenizer_only_keys(root, path,
                            " version truncation padding added_tokens normalizer pre_tokenizer "
                            "post_processor decoder model "));
    if (json_has(root, "version")) {
        const char *version;
        TRY(json_get_string(&version, root, path, "version"));
        if (strcmp(version, "1.0") != 0)
            return fail(BAD_INPUT, "%s: version '%.100s' is not supported; 1.0 is", path, version);
    }
    TRY(refuse_fixed_sizes(root, path));
    if (!json_has(root, "model"))
        return fail(BAD_INPUT, "%s: 'model' is missing", path);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char where[PATH_BYTES + 32];
        snprintf(where, sizeof where, "%s: %s", path, parts[i].key);
        if (json_has(root, parts[i].key))
            TRY(parts[i].read(t, json_object_get(root, parts[i].key), where));
    }
    t->has_decoder = json_has(root, "decoder");
    return OK;
}

// The JSON is parsed whole (9 MB for Llama 3) and freed before the first text is encoded.
Status tokenizer_json_read(Tokenizer *tokenizer, const char *path)
{
    json_t *root;
    TRY(json_read(&root, path));
    Status status = read_root(tokenizer, root, path);
    json_decref(root);
    return status;
}
