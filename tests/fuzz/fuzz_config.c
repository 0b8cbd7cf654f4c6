// train/config: a YAML file, with what follows its first zero byte as overrides, one up to each
// zero, is refused, or the config survives being written and read.
#include "tests/fuzz/fuzzing.h"

#include "base/file.h"
#include "train/config/config.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_OVERRIDES = 8 };

static int split_overrides(char **overrides, char *text, const char *end)
{
    int n = 0;
    for (char *next = text; next < end && n < MOST_OVERRIDES; next += strlen(next) + 1)
        overrides[n++] = next;
    return n;
}

static void read_whole(char **out, size_t *size, const char *path)
{
    FileMap map;
    CHECK(file_map(&map, path) == OK, "%s", fail_text());
    *size = (size_t)map.size_bytes;
    *out = malloc(*size + 1);
    CHECK(*out != NULL, "no memory");
    memcpy(*out, map.bytes, *size);
    (*out)[*size] = '\0';
    file_unmap(&map);
}

static void check_round_trip(const Config *config)
{
    char paths[2][PATH_BYTES], *texts[2];
    size_t sizes[2];
    Config back;
    CHECK(file_join(paths[0], fuzz_dir(), "once.yaml") == OK, "%s", fail_text());
    CHECK(file_join(paths[1], fuzz_dir(), "twice.yaml") == OK, "%s", fail_text());
    CHECK(config_write(config, paths[0]) == OK, "%s", fail_text());
    read_whole(&texts[0], &sizes[0], paths[0]);
    CHECK(config_load(&back, paths[0], NULL, 0) == OK, "%s in:\n%s", fail_text(), texts[0]);
    CHECK(config_write(&back, paths[1]) == OK, "%s", fail_text());
    read_whole(&texts[1], &sizes[1], paths[1]);
    CHECK(sizes[0] == sizes[1] && memcmp(texts[0], texts[1], sizes[0]) == 0,
          "another config came back from:\n%sas:\n%s", texts[0], texts[1]);
    config_release(&back);
    free(texts[0]);
    free(texts[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size > 0 ? memchr(data, 0, size) : NULL;
    size_t file_bytes = zero != NULL ? (size_t)(zero - data) : size;
    size_t rest = zero != NULL ? size - file_bytes - 1 : 0;
    char *text = calloc(rest + 1, 1), *overrides[MOST_OVERRIDES];
    CHECK(text != NULL, "no memory");
    if (rest > 0)
        memcpy(text, zero + 1, rest);
    int n = split_overrides(overrides, text, text + rest);
    Config config;
    Status status = config_load(&config, fuzz_file("run.yaml", data, file_bytes), overrides, n);
    free(text);
    if (status != OK)
        return fuzz_check_refusal(status);
    check_round_trip(&config);
    config_release(&config);
    return 0;
}
