#include "train/distill/distill_state.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { HEADER_BYTES = 1024, STATE_VERSION = 1 };

static Status name_file(char out[PATH_BYTES], const char *dir, int layer)
{
    char name[32];
    snprintf(name, sizeof name, "layer-%04d.bin", layer);
    return file_join(out, dir, name);
}

static Status write_file(AtomicFile *file, const char header[HEADER_BYTES], const float *values,
                         int64_t count)
{
    if (fwrite(header, 1, HEADER_BYTES, file->stream) != HEADER_BYTES ||
        fwrite(values, sizeof *values, (size_t)count, file->stream) != (size_t)count) {
        file_abandon(file);
        return fail(FAILED, "%s: cannot be written", file->path);
    }
    return file_commit(file);
}

Status distill_state_write(const char *dir, int layer, const char *fingerprint, const float *values,
                           int64_t count, const LayerLosses *losses)
{
    char path[PATH_BYTES], sha256[SHA256_HEX_BYTES], header[HEADER_BYTES];
    AtomicFile file;
    TRY(name_file(path, dir, layer));
    TRY(checksum_sha256_bytes(sha256, values, count * (int64_t)sizeof *values));
    memset(header, ' ', sizeof header);
    const int length = snprintf(
        header, sizeof header,
        "{\"format\": \"mha2mla-distilled-layer\", \"version\": %d, \"layer\": %d, \"inputs\": "
        "\"%s\", \"numbers\": %lld, \"sha256\": \"%s\", \"first_loss\": %.17g, \"trained_loss\": "
        "%.17g, \"loss\": %.17g}\n",
        STATE_VERSION, layer, fingerprint, (long long)count, sha256, losses->first, losses->trained,
        losses->fitted);
    header[length] = ' ';
    TRY(file_begin(&file, path));
    return write_file(&file, header, values, count);
}

static Status check(const FileMap *map, LayerLosses *losses, const char *path,
                    const char *fingerprint, int64_t count)
{
    char sha256[SHA256_HEX_BYTES];
    const char *inputs, *expected;
    json_int_t numbers;
    int version;
    if (map->size_bytes < HEADER_BYTES)
        return fail(BAD_INPUT, "%s: is cut off", path);
    json_t *header = json_loadb((const char *)map->bytes, HEADER_BYTES, 0, NULL);
    Status status = OK;
    if (json_unpack(header, "{s:i, s:s, s:I, s:s, s:F, s:F, s:F}", "version", &version, "inputs",
                    &inputs, "numbers", &numbers, "sha256", &expected, "first_loss", &losses->first,
                    "trained_loss", &losses->trained, "loss", &losses->fitted) != 0 ||
        version != STATE_VERSION)
        status = fail(BAD_INPUT, "%s: is no state of a distillation of this version", path);
    else if (strcmp(inputs, fingerprint) != 0)
        status = fail(BAD_INPUT, "%s: was made from other models, data or settings", path);
    else if (numbers != count || map->size_bytes != HEADER_BYTES + count * (int64_t)sizeof(float))
        status = fail(BAD_INPUT, "%s: has %lld bytes, which is not a whole layer", path,
                      (long long)map->size_bytes);
    else
        status = checksum_sha256_bytes(sha256, map->bytes + HEADER_BYTES,
                                       count * (int64_t)sizeof(float));
    if (status == OK && strcmp(sha256, expected) != 0)
        status = fail(BAD_INPUT, "%s: is damaged", path);
    json_decref(header);
    return status;
}

bool distill_state_read(float *values, LayerLosses *losses, const char *dir, int layer,
                        const char *fingerprint, int64_t count)
{
    char path[PATH_BYTES];
    FileMap map;
    LayerLosses found;
    if (name_file(path, dir, layer) != OK || !file_exists(path))
        return false;
    Status status = file_map(&map, path);
    if (status == OK) {
        status = check(&map, &found, path, fingerprint, count);
        if (status == OK && values != NULL)
            memcpy(values, map.bytes + HEADER_BYTES, (size_t)count * sizeof *values);
        file_unmap(&map);
    }
    if (status == OK)
        *losses = found;
    else
        log_warn("%s; the layer is distilled again", fail_text());
    return status == OK;
}

void distill_state_remove(const char *dir, int n_layers)
{
    char path[PATH_BYTES];
    for (int layer = 0; layer < n_layers; layer++)
        if (name_file(path, dir, layer) == OK)
            unlink(path);
    rmdir(dir);
}
