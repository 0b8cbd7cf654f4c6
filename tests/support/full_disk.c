// LD_PRELOAD: the disk is full for the temporary file of the name in FULL_FILE.
#define _GNU_SOURCE // RTLD_NEXT
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

FILE *fopen(const char *path, const char *mode)
{
    FILE *(*next)(const char *, const char *);
    void *found = dlsym(RTLD_NEXT, "fopen");
    memcpy(&next, &found, sizeof next); // ISO C has no cast from an object to a function
    const char *slash = strrchr(path, '/'), *full = getenv("FULL_FILE");
    const char *name = slash != NULL ? slash + 1 : path;
    const size_t length = full != NULL ? strlen(full) : 0;
    if (length > 0 && name[0] == '.' && strncmp(name + 1, full, length) == 0 &&
        strncmp(name + 1 + length, ".tmp-", 5) == 0)
        path = "/dev/full";
    return next(path, mode);
}
