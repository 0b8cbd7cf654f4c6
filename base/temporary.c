// Host and process id are in the name, and not a lock on the file: file systems without locks are
// common on clusters, and HDF5 would have to share the lock. A process id that was given to another
// process since only keeps a leftover for longer.
#define _GNU_SOURCE // O_CLOEXEC, gethostname
#include "base/temporary.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// A name has at most 255 bytes on the usual file systems: long ones are cut. What is left of two
// such names may be equal, as the ids that follow tell their files apart.
enum { STEM_BYTES = 128, HOST_BYTES = 64, NAME_BYTES = 256 };

static const char *const mark = ".tmp-";

// The part of host names up to the first dot, with what may stand in a file's name unquoted.
static void own_host(char out[HOST_BYTES])
{
    if (gethostname(out, HOST_BYTES) != 0)
        strcpy(out, "host");
    out[HOST_BYTES - 1] = '\0';
    out[strcspn(out, ".")] = '\0';
    for (char *c = out; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && *c != '-')
            *c = '_';
    }
}

// Where the name begins; before it is the directory, with its slash, or nothing.
static const char *name_in(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

Status temporary_make(char out[PATH_BYTES], const char *path)
{
    static atomic_int count; // of this process, over its threads
    char host[HOST_BYTES];
    const char *name = name_in(path);
    const int dir_bytes = (int)(name - path);
    own_host(host);
    if (strlen(path) >= PATH_BYTES)
        return fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
    // The rename at the end would put a file in the place of a device: root may do that to
    // /dev/null.
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return fail(BAD_INPUT, "%s: is %s, not a regular file; name a file to write", path,
                    file_kind_of_mode(st.st_mode));
    for (;;) {
        const int n = snprintf(out, PATH_BYTES, "%.*s.%.*s%s%s-%ld-%d", dir_bytes, path, STEM_BYTES,
                               name, mark, host, (long)getpid(), atomic_fetch_add(&count, 1));
        if (n < 0 || n >= PATH_BYTES)
            return fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
        const int file = open(out, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file >= 0) {
            close(file);
            return OK;
        }
        if (errno != EEXIST) // of a container with the same host name, or a leftover of long ago
            return fail(FAILED, "%s: cannot be written: %s", path, strerror(errno));
    }
}

// ---- leftovers ---------------------------------------------------------------------------------

// Reads ".NAME.tmp-HOST-PID-COUNT". Host names have dashes of their own, so it is read from the
// end.
static bool parse_name(const char *name, char host[NAME_BYTES], int *pid)
{
    int count = 0, length = 0;
    const char *at = strstr(name, mark);
    if (name[0] != '.' || at == NULL || snprintf(host, NAME_BYTES, "%s", at + strlen(mark)) < 5)
        return false;
    for (int i = 0; i < 2; i++) {
        char *dash = strrchr(host, '-');
        if (dash == NULL || sscanf(dash, "-%d%n", i == 0 ? &count : pid, &length) != 1 ||
            dash[length] != '\0' || length < 2)
            return false;
        *dash = '\0';
    }
    return host[0] != '\0' && *pid > 0;
}

// A file that cannot be removed only takes room.
static void remove_files(const char *dir, bool of_dead_only)
{
    char own[HOST_BYTES], host[NAME_BYTES];
    own_host(own);
    DIR *entries = opendir(dir);
    if (entries == NULL)
        return;
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        int pid = 0;
        if (!parse_name(entry->d_name, host, &pid))
            continue;
        const bool is_dead = strcmp(host, own) == 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH;
        if (is_dead || !of_dead_only)
            unlinkat(dirfd(entries), entry->d_name, 0);
    }
    closedir(entries);
}

void temporary_remove_dead(const char *path)
{
    char dir[PATH_BYTES];
    const int dir_bytes = (int)(name_in(path) - path);
    if (snprintf(dir, sizeof dir, "%.*s", dir_bytes, path) < PATH_BYTES)
        remove_files(dir_bytes > 0 ? dir : ".", true);
}

void temporary_remove_all(const char *dir)
{
    remove_files(dir, false);
}
