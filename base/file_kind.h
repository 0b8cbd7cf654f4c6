// What a file is that is not what its reader expects, told by its first bytes: a Git LFS pointer, a
// web page, an archive. Readers ask when they refuse a file, so that the error says what to do.
//
//     const char *kind = file_kind_of_bytes(map.bytes, map.size_bytes);
//     if (kind != NULL)
//         return fail(BAD_INPUT, "%s: is %s", path, kind);
#ifndef MHA2MLA_BASE_FILE_KIND_H
#define MHA2MLA_BASE_FILE_KIND_H

#include "base/status.h"

#include <stdint.h>

#define FILE_KIND_UTF16 "UTF-16 text; convert it with iconv -f UTF-16 -t UTF-8"

// "a Git LFS pointer, not the file itself; fetch it with git lfs pull". NULL: none that is known.
const char *file_kind_of_bytes(const void *bytes, int64_t size_bytes);

// BAD_INPUT where a file is known to be something else by its first bytes, or where aria2 has not
// finished its download. A file that cannot be read is OK here: its reader says why.
Status file_kind_check(const char *path);

#endif
