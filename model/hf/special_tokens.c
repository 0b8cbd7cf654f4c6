// The texts are looked up in tokenizer.json as JSON: its vocabulary and added tokens are all that
// is needed, and a tokenizer that this program cannot run is no reason to refuse a model.
#include "model/hf/special_tokens.h"

#include "base/file.h"
#include "base/json_python.h"

#include <string.h>

typedef struct SpecialToken {
    const char *id_key, *text_key;
    const char *usual[2]; // texts by which an added token is taken for it
} SpecialToken;

static const SpecialToken special_tokens[N_SPECIAL] = {
    [SPECIAL_BOS] = {"bos_token_id", "bos_token", {"<s>", "<|begin_of_text|>"}},
    [SPECIAL_EOS] = {"eos_token_id", "eos_token", {"</s>", "<|endoftext|>"}},
    [SPECIAL_PAD] = {"pad_token_id", "pad_token", {"<pad>", "<|pad|>"}},
};

enum { N_WRITTEN = SPECIAL_EOS + 1 }; // those that are put where they are missing

// Each is owned, and NULL if the directory does not have it or it cannot be read.
typedef struct TokenFiles {
    json_t *generation, *tokenizer_config, *map, *tokenizer, *vocab;
} TokenFiles;

static json_t *read_object(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    json_t *root;
    if (file_join(path, dir, name) != OK || !file_exists(path) || json_read(&root, path) != OK)
        return NULL;
    if (json_is_object(root))
        return root;
    json_decref(root);
    return NULL;
}

static void open_files(TokenFiles *files, const char *dir)
{
    files->generation = read_object(dir, "generation_config.json");
    files->tokenizer_config = read_object(dir, "tokenizer_config.json");
    files->map = read_object(dir, "special_tokens_map.json");
    files->tokenizer = read_object(dir, "tokenizer.json");
    files->vocab = read_object(dir, "vocab.json");
}

static void close_files(TokenFiles *files)
{
    json_decref(files->generation);
    json_decref(files->tokenizer_config);
    json_decref(files->map);
    json_decref(files->tokenizer);
    json_decref(files->vocab);
}

// ---- texts and ids -----------------------------------------------------------------------------

// The text of an added token, "<s>" or {"content": "<s>", ...}; NULL: the object does not say it.
static const char *text_in(const json_t *object, const SpecialToken *token)
{
    const json_t *value = json_object_get(object, token->text_key);
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

static const json_t *vocab_of(const TokenFiles *files)
{
    return files->tokenizer != NULL
               ? json_object_get(json_object_get(files->tokenizer, "model"), "vocab")
               : files->vocab;
}

// Borrowed; NULL if no added token, or none at all, has the text.
static const json_t *id_of(const TokenFiles *files, const char *text, bool is_added)
{
    const json_t *entry;
    size_t i;
    if (text == NULL)
        return NULL;
    json_array_foreach(json_object_get(files->tokenizer, "added_tokens"), i, entry)
    {
        const char *content = json_string_value(json_object_get(entry, "content"));
        if (content != NULL && strcmp(content, text) == 0)
            return json_object_get(entry, "id");
    }
    return is_added ? NULL : json_object_get(vocab_of(files), text);
}

// Of a list of ids the first counts, as for a tokenizer. NULL if there is no such token.
static const char *text_of(const TokenFiles *files, const json_t *id)
{
    const json_t *first = json_is_array(id) ? json_array_get(id, 0) : id, *entry;
    const char *text;
    size_t i;
    json_array_foreach(json_object_get(files->tokenizer, "added_tokens"), i, entry)
    {
        if (json_equal(json_object_get(entry, "id"), first))
            return json_string_value(json_object_get(entry, "content"));
    }
    json_object_foreach((json_t *)(uintptr_t)vocab_of(files), text, entry)
    {
        if (json_equal(entry, first))
            return text;
    }
    return NULL;
}

// Borrowed; NULL: nothing says it.
static json_t *find_id(const TokenFiles *files, const json_t *config, const SpecialToken *token)
{
    const json_t *id = NULL;
    if (json_has(files->generation, token->id_key))
        id = json_object_get(files->generation, token->id_key);
    else if (json_has(config, token->id_key))
        id = json_object_get(config, token->id_key);
    if (id == NULL)
        id = id_of(files, text_in(files->tokenizer_config, token), false);
    if (id == NULL)
        id = id_of(files, text_in(files->map, token), false);
    for (int i = 0; i < 2 && id == NULL; i++)
        id = id_of(files, token->usual[i], true);
    return (json_t *)(uintptr_t)id;
}

void special_tokens_find(int32_t ids[N_SPECIAL], const char *dir)
{
    TokenFiles files;
    json_t *config = read_object(dir, "config.json");
    open_files(&files, dir);
    for (int i = 0; i < N_SPECIAL; i++) {
        const json_t *id = find_id(&files, config, &special_tokens[i]);
        const json_t *first = json_is_array(id) ? json_array_get(id, 0) : id;
        const json_int_t value = json_is_integer(first) ? json_integer_value(first) : -1;
        ids[i] = value >= 0 && value <= INT32_MAX ? (int32_t)value : -1;
    }
    close_files(&files);
    json_decref(config);
}

// ---- writing -----------------------------------------------------------------------------------

static Status write_file(json_t *object, const char *dir, const char *name)
{
    char path[PATH_BYTES];
    TRY(file_join(path, dir, name));
    json_python_drop(object);
    return json_write_exact(object, path);
}

static bool is_there(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    return file_join(path, dir, name) == OK && file_exists(path);
}

// generation_config.json: a file that cannot be read stays.
static Status write_generation(TokenFiles *files, json_t *const ids[N_WRITTEN], const char *dir)
{
    static const char name[] = "generation_config.json";
    bool is_changed = false;
    if (files->generation == NULL && is_there(dir, name))
        return OK;
    if (files->generation == NULL)
        files->generation = json_object();
    for (int i = 0; i < N_WRITTEN; i++) {
        if (ids[i] == NULL || json_has(files->generation, special_tokens[i].id_key))
            continue;
        is_changed = true;
        if (json_object_set(files->generation, special_tokens[i].id_key, ids[i]) != 0)
            return fail(FAILED, "%s/%s: no memory", dir, name);
    }
    return is_changed ? write_file(files->generation, dir, name) : OK;
}

// tokenizer_config.json. Where it is there without a bos_token, none is put in: that says of a
// tokenizer that its texts do not begin with one.
static Status write_tokenizer_config(TokenFiles *files, json_t *const ids[N_WRITTEN],
                                     const char *dir, int max_positions)
{
    static const char name[] = "tokenizer_config.json";
    const bool is_new = files->tokenizer_config == NULL;
    int errors = 0, n_set = 0;
    if ((is_new && is_there(dir, name)) || vocab_of(files) == NULL)
        return OK;
    if (is_new) // without a class, transformers derives the tokenizer from the model's type
        files->tokenizer_config =
            json_pack("{s:s, s:i, s:b}", "tokenizer_class",
                      files->tokenizer != NULL ? "PreTrainedTokenizerFast" : "GPT2Tokenizer",
                      "model_max_length", max_positions, "clean_up_tokenization_spaces", 0);
    for (int i = 0; i < N_WRITTEN; i++) {
        const SpecialToken *token = &special_tokens[i];
        const char *text = ids[i] != NULL ? text_of(files, ids[i]) : NULL;
        const bool is_eos = i == SPECIAL_EOS;
        if (text == NULL || json_has(files->tokenizer_config, token->text_key) ||
            (!is_new && !is_eos))
            continue;
        errors += json_object_set_new(files->tokenizer_config, token->text_key, json_string(text));
        n_set++;
    }
    if (errors != 0)
        return fail(FAILED, "%s/%s: no memory", dir, name);
    return is_new || n_set > 0 ? write_file(files->tokenizer_config, dir, name) : OK;
}

Status special_tokens_write(json_t *config, const char *dir, int max_positions)
{
    Status status = OK;
    TokenFiles files = {0};
    json_t *ids[N_WRITTEN]; // borrowed from `files` and `config`, whose ids are not replaced
    int errors = 0;
    open_files(&files, dir);
    for (int i = 0; i < N_WRITTEN; i++)
        ids[i] = find_id(&files, config, &special_tokens[i]);
    for (int i = 0; i < N_WRITTEN; i++)
        if (!json_has(config, special_tokens[i].id_key))
            errors += ids[i] != NULL
                          ? json_object_set(config, special_tokens[i].id_key, ids[i])
                          : json_object_set_new(config, special_tokens[i].id_key, json_null());
    if (errors != 0) {
        status = fail(FAILED, "%s/config.json: no memory", dir);
        goto close;
    }
    TRY_GOTO(close, write_generation(&files, ids, dir));
    status = write_tokenizer_config(&files, ids, dir, max_positions);
close:
    close_files(&files);
    return status;
}
