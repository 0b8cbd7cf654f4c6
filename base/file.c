// A write that is all or nothing goes to a temporary file in the same directory, since rename()
// replaces a file in one step only within a file system. Data is synced before the rename and the
// directory after it: otherwise a crash may leave the new name with no content, or the old one.
#define _GNU_SOURCE // O_DIRECTORY
#include "base/file.h"
#include "base/temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const char *file_kind_of_mode(mode_t mode)
{
    return S_ISDIR(mode)    ? "a directory"
           : S_ISFIFO(mode) ? "a named pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

// O_NONBLOCK has no effect on regular files, and a pipe without a writer is opened at once.
Status file_open(int *fd, const char *path)
{
    struct stat st;
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0)
        return fail(BAD_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(file, &st) == 0 && S_ISREG(st.st_mode)) {
        *fd = file;
        return OK;
    }
    close(file);
    return fail(BAD_INPUT, "%s: is %s, not a regular file", path, file_kind_of_mode(st.st_mode));
}

Status file_open_stream(FILE **out, const char *path)
{
    int fd;
    TRY(file_open(&fd, path));
    FILE *stream = fdopen(fd, "rb");
    if (stream == NULL) {
        close(fd);
        return fail(FAILED, "%s: no memory to read it", path);
    }
    *out = stream;
    return OK;
}

Status file_map(FileMap *out, const char *path)
{
    Status status = OK;
    struct stat st;
    int fd;
    TRY(file_open(&fd, path));
    if (fstat(fd, &st) != 0) {
        status = fail(FAILED, "%s: cannot be read: %s", path, strerror(errno));
        goto close_fd;
    }
    FileMap map = {.size_bytes = st.st_size};
    if (st.st_size > 0) { // mmap() refuses a length of 0
        void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED) {
            status = fail(FAILED, "%s: cannot be mapped: %s", path, strerror(errno));
            goto close_fd;
        }
        map.bytes = bytes;
    }
    *out = map;
close_fd:
    close(fd); // the map holds the file by itself
    return status;
}

void file_unmap(FileMap *map)
{
    if (map->bytes != NULL)
        munmap((void *)(uintptr_t)map->bytes, (size_t)map->size_bytes);
    *map = (FileMap){0};
}

// snprintf() returns the length it would need, so a cut path is noticed before it names another
// file.
Status file_join(char out[PATH_BYTES], const char *dir, const char *name)
{
    int n = snprintf(out, PATH_BYTES, "%s/%s", dir, name);
    if (n < 0 || n >= PATH_BYTES)
        return fail(BAD_INPUT, "%.200s.../%s: path longer than %d bytes", dir, name, PATH_BYTES);
    return OK;
}

Status file_begin(AtomicFile *out, const char *path)
{
    int n = snprintf(out->path, sizeof out->path, "%s", path);
    if (n < 0 || n >= PATH_BYTES)
        return fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
    TRY(temporary_make(out->temporary, path));
    out->stream = fopen(out->temporary, "wbe");
    if (out->stream == NULL) {
        const int error = errno;
        unlink(out->temporary);
        return fail(FAILED, "%s: cannot be written: %s", path, strerror(error));
    }
    return OK;
}

void file_abandon(AtomicFile *file)
{
    if (file->stream != NULL)
        fclose(file->stream);
    file->stream = NULL;
    unlink(file->temporary);
}

Status file_commit(AtomicFile *file)
{
    // A full disk may show at any of the three: an earlier write, the flush, or the close (NFS).
    bool written = fflush(file->stream) == 0 && !ferror(file->stream);
    int error = errno;
    if (fclose(file->stream) != 0 && written) {
        written = false;
        error = errno;
    }
    file->stream = NULL;
    if (!written) {
        unlink(file->temporary);
        return fail(FAILED, "%s: write failed: %s", file->path, strerror(error));
    }
    return file_publish(file->temporary, file->path);
}

// fsync() of a file or directory that nobody holds open any more.
static Status sync_path(const char *path, int flags)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0)
        return fail(FAILED, "%s: cannot be opened: %s", path, strerror(errno));
    // Some file systems cannot fsync a directory; the rename is then as durable as they make it.
    bool synced = fsync(fd) == 0 || (flags == O_DIRECTORY && errno == EINVAL);
    int error = errno;
    close(fd);
    return synced ? OK : fail(FAILED, "%s: fsync failed: %s", path, strerror(error));
}

Status file_publish(const char *temporary, const char *path)
{
    Status status;
    // Content first, then the name, then the directory entry: at any crash the path has all of the
    // old content or all of the new.
    TRY_GOTO(remove_temporary, sync_path(temporary, 0));
    if (rename(temporary, path) != 0) {
        status = fail(FAILED, "%s: %s cannot take this name: %s", path, temporary, strerror(errno));
        goto remove_temporary;
    }
    char copy[PATH_BYTES]; // dirname() writes into its argument
    snprintf(copy, sizeof copy, "%s", path);
    return file_sync_dir(dirname(copy));
remove_temporary:
    unlink(temporary);
    return status;
}

Status file_sync_dir(const char *path)
{
    return sync_path(path, O_DIRECTORY);
}

// By trying: permissions, a read-only file system or a missing folder all show that way.
Status file_check_target(const char *path)
{
    AtomicFile file;
    if (file_is_dir(path))
        return fail(BAD_INPUT, "%s: is a directory; name a file to write", path);
    TRY(file_begin(&file, path));
    file_abandon(&file);
    return OK;
}

// A short write is kept in the stream's error flag, so only file_commit() needs to check.
Status file_write(const char *path, const void *bytes, int64_t size_bytes)
{
    AtomicFile file;
    TRY(file_begin(&file, path));
    if (size_bytes > 0) // the bytes of an empty map are NULL
        fwrite(bytes, 1, (size_t)size_bytes, file.stream);
    return file_commit(&file); // sees the stream's error
}

Status file_remove(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    TRY(file_join(path, dir, name));
    if (unlink(path) != 0 && errno != ENOENT)
        return fail(FAILED, "%s: cannot be removed: %s", path, strerror(errno));
    return OK;
}

// Through a map: the files copied here are tokenizers and configs.
Status file_copy(const char *from, const char *to)
{
    FileMap map;
    TRY(file_map(&map, from));
    Status status = file_write(to, map.bytes, map.size_bytes);
    file_unmap(&map);
    return status;
}

// False for a dangling link, true for a directory.
bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool file_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool file_is_same(const char *a, const char *b)
{
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

Status file_make_dirs(const char *path)
{
    char partial[PATH_BYTES];
    if (snprintf(partial, sizeof partial, "%s", path) >= PATH_BYTES)
        return fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
    // The path is cut at each slash in turn; the first character may be the root's.
    for (char *p = partial + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char end = *p;
        *p = '\0';
        // Another rank may make the same directory meanwhile: what counts is that it is there.
        const int error = mkdir(partial, 0777) == 0 ? 0 : errno;
        if (error != 0 && !file_is_dir(partial))
            return fail(FAILED, "%s: directory cannot be made: %s", partial,
                        error == EEXIST ? "a file has this name" : strerror(error));
        *p = end;
        if (end == '\0')
            return OK;
    }
}
