// Files: read-only maps, whole small files, directories, and writes that are all or nothing.
//
//     AtomicFile f;
//     TRY(file_begin(&f, "model/config.json"));
//     fputs(text, f.stream);
//     TRY(file_commit(&f));      // fsync, rename, fsync of the directory; or file_abandon(&f)
//
// Errors name the path and what the system said.
#ifndef MHA2MLA_BASE_FILE_H
#define MHA2MLA_BASE_FILE_H

#include "base/status.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum { PATH_BYTES = 4096 };

// Opens a regular file for reading; the caller closes *fd. BAD_INPUT if it is missing, unreadable
// or something else: a named pipe is refused at once, where open() would wait for its writer.
Status file_open(int *fd, const char *path);
Status file_open_stream(FILE **out, const char *path); // fclose() by the caller; errors likewise

const char *file_kind_of_mode(mode_t mode); // "a named pipe", of what is no regular file

typedef struct FileMap {
    const unsigned char *bytes; // owned; NULL for an empty file
    int64_t size_bytes;
} FileMap;

// Maps a regular file for reading. Errors as file_open().
Status file_map(FileMap *out, const char *path);
void file_unmap(FileMap *map);

typedef struct AtomicFile {
    FILE *stream; // owned; the temporary file beside `path`
    char path[PATH_BYTES];
    char temporary[PATH_BYTES];
} AtomicFile;

Status file_begin(AtomicFile *out, const char *path);
Status file_commit(AtomicFile *file); // closes; on failure the old file is untouched
void file_abandon(AtomicFile *file);  // closes and removes the temporary

// fsyncs a finished temporary file, renames it to `path`, fsyncs the directory. For writers that do
// not write through a FILE (HDF5).
Status file_publish(const char *temporary, const char *path);

// Fails now where writing `path` at the end of long work would fail: it is a directory, or no file
// can be made beside it. Leaves nothing behind.
Status file_check_target(const char *path);

Status file_write(const char *path, const void *bytes, int64_t size_bytes); // atomic
Status file_copy(const char *from, const char *to);                         // atomic
Status file_remove(const char *dir, const char *name);                      // if it is there
Status file_sync_dir(const char *path); // what was made, renamed or removed in it is on the disk
bool file_exists(const char *path);
bool file_is_dir(const char *path);
// By device and inode: two spellings, or a link, of what is there are the same.
bool file_is_same(const char *a, const char *b);
Status file_make_dirs(const char *path); // like mkdir -p

// Joins dir and name; BAD_INPUT if the result is too long.
Status file_join(char out[PATH_BYTES], const char *dir, const char *name);

#endif
