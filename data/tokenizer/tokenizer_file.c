// The checksum that tells whether shards were made with a model's tokenizer. It is of the files'
// bytes: two files that mean the same but are written differently count as two tokenizers.
#include "data/tokenizer/tokenizer_file.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>

static Status sha256_of_both(char out[SHA256_HEX_BYTES], const char *first_path,
                             const char *second_path)
{
    FileMap first = {0}, second = {0};
    char *both = NULL;
    Status status;
    TRY_GOTO(unmap, file_map(&first, first_path));
    TRY_GOTO(unmap, file_map(&second, second_path));
    // As if one file followed the other; both together are a few MB.
    both = malloc((size_t)(first.size_bytes + second.size_bytes) + 1);
    if (both == NULL) {
        status = fail(FAILED, "%s: no memory for its checksum", first_path);
        goto unmap;
    }
    if (first.size_bytes > 0)
        memcpy(both, first.bytes, (size_t)first.size_bytes);
    if (second.size_bytes > 0)
        memcpy(both + first.size_bytes, second.bytes, (size_t)second.size_bytes);
    status = checksum_sha256_bytes(out, both, first.size_bytes + second.size_bytes);
unmap:
    free(both);
    file_unmap(&second);
    file_unmap(&first);
    return status;
}

// The same order of preference as loading: the checksum is of the file that is used. A directory
// without either has "", which compares with no shard.
Status tokenizer_file_sha256(char out[SHA256_HEX_BYTES], const char *dir)
{
    char json[PATH_BYTES], vocab[PATH_BYTES], merges[PATH_BYTES];
    TRY(file_join(json, dir, "tokenizer.json"));
    TRY(file_join(vocab, dir, "vocab.json"));
    TRY(file_join(merges, dir, "merges.txt"));
    if (file_exists(json))
        return checksum_sha256_file(out, json);
    if (file_exists(vocab) && file_exists(merges))
        return sha256_of_both(out, vocab, merges);
    out[0] = '\0';
    return OK;
}
