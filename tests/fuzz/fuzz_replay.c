// Runs a fuzz target once on each file of the folders it is given: the regression corpora as a unit
// test, without libFuzzer.
#include "tests/fuzz/fuzzing.h"

#include "base/file.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

// A copy of its own size, so that the address sanitizer sees a read behind the input.
static void replay_file(const char *path)
{
    FileMap map;
    CHECK(file_map(&map, path) == OK, "%s", fail_text());
    size_t size = (size_t)map.size_bytes;
    uint8_t *copy = malloc(size);
    CHECK(copy != NULL || size == 0, "no memory for %s", path);
    if (size > 0)
        memcpy(copy, map.bytes, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    file_unmap(&map);
}

static int replay_dir(const char *path)
{
    struct dirent **entries;
    int n_replayed = 0, n = scandir(path, &entries, NULL, alphasort);
    CHECK(n >= 0, "%s: no such folder", path);
    for (int i = 0; i < n; i++) {
        char file[PATH_BYTES];
        if (entries[i]->d_name[0] != '.') {
            CHECK(file_join(file, path, entries[i]->d_name) == OK, "%s", fail_text());
            printf("%s\n", file);
            fflush(stdout); // the last name printed is the input that fails
            replay_file(file);
            n_replayed++;
        }
        free(entries[i]);
    }
    free(entries);
    return n_replayed;
}

int main(int argc, char **argv)
{
    int n = 0;
    for (int i = 1; i < argc; i++)
        n += replay_dir(argv[i]);
    CHECK(n > 0, "no inputs in the %d folders given", argc - 1);
    return 0;
}
