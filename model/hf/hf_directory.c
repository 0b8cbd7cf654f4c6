#include "model/hf/hf_directory.h"

#include "base/file_kind.h"
#include "model/hf/custom_code.h"
#include "model/hf/hf.h"
#include "model/hf/special_tokens.h"

static const int64_t default_max_shard_bytes = 5000000000; // transformers' max_shard_size of "5GB"

// What AutoTokenizer and generate() look for beside the weights. A model may have any part of them.
static const char *const copied_files[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
};

// A pointer in place of a file would be copied, and noticed by who loads the result.
Status hf_check_tokenizer(const char *base_dir)
{
    char path[PATH_BYTES];
    for (size_t i = 0; i < sizeof copied_files / sizeof copied_files[0]; i++) {
        TRY(file_join(path, base_dir, copied_files[i]));
        TRY(file_kind_check(path));
    }
    return OK;
}

// Missing files are skipped; copies are atomic, so an interrupted save leaves no half of a
// tokenizer.
Status hf_copy_tokenizer(const char *base_dir, const char *dir)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    TRY(file_make_dirs(dir));
    for (size_t i = 0; i < sizeof copied_files / sizeof copied_files[0]; i++) {
        TRY(file_join(from, base_dir, copied_files[i]));
        TRY(file_join(to, dir, copied_files[i]));
        if (file_exists(from))
            TRY(file_copy(from, to));
    }
    return OK;
}

Status hf_directory_write(const HfDirectory *files, const char *dir)
{
    const int64_t most =
        files->max_shard_bytes > 0 ? files->max_shard_bytes : default_max_shard_bytes;
    char path[PATH_BYTES];
    TRY(file_make_dirs(dir));
    TRY(file_join(path, dir, "config.json"));
    // From here until the last line the directory is not a model.
    TRY(file_remove(dir, "config.json"));
    TRY(tensor_list_write(files->tensors, dir, most));
    if (files->base_dir != NULL)
        TRY(hf_copy_tokenizer(files->base_dir, dir));
    TRY(files->has_code ? custom_code_write(dir) : custom_code_remove(dir));
    TRY(special_tokens_write(files->config, dir, files->max_positions));
    return json_write_exact(files->config, path);
}
