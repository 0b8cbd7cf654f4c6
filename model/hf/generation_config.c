#include "model/hf/generation_config.h"

#include "base/file.h"
#include "base/json.h"

// Ids are dims of the head, so one beyond them can never be chosen and shows a mistake.
static Status read_id(int32_t *out, const json_t *value, const char *path, const char *key,
                      int vocab_size)
{
    char text[JSON_TEXT_BYTES];
    const int64_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || id >= vocab_size)
        return fail(BAD_INPUT, "%s: '%s' has %s, allowed are token ids, 0 to %d", path, key,
                    json_describe(text, value), vocab_size - 1);
    *out = (int32_t)id;
    return OK;
}

static Status read_end_ids(GenerationConfig *config, const json_t *value, const char *path,
                           int vocab_size)
{
    const char *key = "eos_token_id";
    if (!json_is_array(value)) {
        TRY(read_id(config->end_ids, value, path, key, vocab_size));
        config->n_end_ids = 1;
        return OK;
    }
    if (json_array_size(value) > MAX_END_IDS)
        return fail(BAD_INPUT, "%s: '%s' has %zu ids, allowed are %d", path, key,
                    json_array_size(value), MAX_END_IDS);
    for (size_t i = 0; i < json_array_size(value); i++)
        TRY(read_id(&config->end_ids[i], json_array_get(value, i), path, key, vocab_size));
    config->n_end_ids = (int)json_array_size(value);
    return OK;
}

// Takes from a file what the ones before have not said.
static Status read_file(GenerationConfig *config, const char *path, int vocab_size)
{
    json_t *root;
    TRY(json_read(&root, path));
    Status status = OK;
    if (config->n_end_ids == 0 && json_has(root, "eos_token_id"))
        TRY_GOTO(release,
                 read_end_ids(config, json_object_get(root, "eos_token_id"), path, vocab_size));
    if (config->begin_id < 0 && json_has(root, "bos_token_id"))
        TRY_GOTO(release, read_id(&config->begin_id, json_object_get(root, "bos_token_id"), path,
                                  "bos_token_id", vocab_size));
release:
    json_decref(root);
    return status;
}

Status generation_config_load(GenerationConfig *out, const char *dir, int vocab_size,
                              int32_t eos_id)
{
    static const char *const names[] = {"generation_config.json", "config.json"};
    GenerationConfig config = {.begin_id = -1};
    for (int i = 0; i < 2; i++) {
        char path[PATH_BYTES];
        TRY(file_join(path, dir, names[i]));
        if (file_exists(path))
            TRY(read_file(&config, path, vocab_size));
    }
    if (config.n_end_ids == 0 && eos_id >= 0)
        config.end_ids[config.n_end_ids++] = eos_id;
    *out = config;
    return OK;
}
