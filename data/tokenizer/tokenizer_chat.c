#include "data/tokenizer/tokenizer_chat.h"

#include "base/json.h"

#include <string.h>

static Status copy(char **out, const char *text, size_t size_bytes, const char *path)
{
    *out = strndup(text, size_bytes);
    return *out != NULL ? OK : fail(FAILED, "%s: no memory for the chat template", path);
}

static Status read_file(char **out, const char *path)
{
    FileMap map;
    TRY(file_map(&map, path));
    const char *bytes = map.bytes != NULL ? (const char *)map.bytes : "";
    const Status status = copy(out, bytes, (size_t)map.size_bytes, path);
    file_unmap(&map);
    return status;
}

// A template alone, or a list of {"name", "template"}.
static const char *find_default(const json_t *value)
{
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name != NULL && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(item, "template"));
    }
    return json_string_value(value);
}

Status tokenizer_chat_template(char **out, char path[PATH_BYTES], const char *dir)
{
    json_t *root;
    Status status = OK;
    TRY(file_join(path, dir, "chat_template.jinja"));
    if (file_exists(path))
        return read_file(out, path);
    *out = NULL;
    TRY(file_join(path, dir, "tokenizer_config.json"));
    if (!file_exists(path))
        return OK;
    TRY(json_read(&root, path));
    const char *text = find_default(json_object_get(root, "chat_template"));
    if (text != NULL)
        status = copy(out, text, strlen(text), path);
    json_decref(root);
    return status;
}
