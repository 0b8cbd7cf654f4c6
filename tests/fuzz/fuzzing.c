#include "tests/fuzz/fuzzing.h"

#include "base/file.h"
#include "base/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[PATH_BYTES];

static void remove_dir(void)
{
    DIR *listing = opendir(dir);
    for (const struct dirent *entry; listing != NULL && (entry = readdir(listing)) != NULL;)
        unlinkat(dirfd(listing), entry->d_name, 0);
    if (listing != NULL)
        closedir(listing);
    rmdir(dir);
}

const char *fuzz_dir(void)
{
    if (dir[0] != '\0')
        return dir;
    const char *root = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/mha2mla-fuzz-XXXXXX", root != NULL ? root : "/tmp");
    CHECK(mkdtemp(dir) != NULL, "no temporary directory %s", dir);
    atexit(remove_dir);
    log_set_quiet(true);
    return dir;
}

const char *fuzz_file(const char *name, const void *data, size_t size)
{
    static char path[PATH_BYTES];
    CHECK(file_join(path, fuzz_dir(), name) == OK, "%s", fail_text());
    // A new file each time: HDF5 knows what it has open by the inode, and it does not always close
    // a damaged one.
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size, "%s cannot be written", path);
    close(fd);
    return path;
}

int fuzz_check_refusal(Status status)
{
    const char *text = fail_text();
    CHECK(status == BAD_INPUT, "status %d: %s", (int)status, text);
    CHECK(text[0] != '\0', "an error without a text");
    for (const char *c = text; *c != '\0'; c++)
        CHECK((unsigned char)*c >= ' ' && *c != 0x7f, "a control character in '%s'", text);
    return 0;
}

uint8_t fuzz_take_byte(FuzzInput *input)
{
    if (input->size == 0)
        return 0;
    input->size--;
    return *input->bytes++;
}
