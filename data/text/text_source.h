// Where texts come from: files, named pipes and standard input, and whether they hold JSON lines or
// plain text.
//
//     bool is_jsonl;
//     int fd;
//     TRY(text_source_is_jsonl(&is_jsonl, path, TEXT_BY_NAME));
//     TRY(text_source_open(&fd, path, stop));
//
// The name "-" is standard input; a file of that name is "./-".
#ifndef MHA2MLA_DATA_TEXT_TEXT_SOURCE_H
#define MHA2MLA_DATA_TEXT_TEXT_SOURCE_H

#include "base/paths.h"
#include "base/status.h"

#include <signal.h>

typedef enum TextFormat {
    TEXT_BY_NAME, // .jsonl, .json: JSON lines; .txt: plain; each also with .gz or .zst; "-": JSON
                  // lines
    TEXT_JSONL,   // whatever the name
    TEXT_PLAIN,
} TextFormat;

bool text_source_is_stdin(const char *path);

// How errors name it: "stdin" for "-".
const char *text_source_name(const char *path);

// BAD_INPUT: a path that is too long, or a name that does not say and no format is given.
Status text_source_is_jsonl(bool *out, const char *path, TextFormat format);

// A pipe is opened as soon as it has a writer; until then this waits, or for `stop` (may be NULL),
// which is FAILED. BAD_INPUT: what cannot be read, such as a terminal. The caller closes *fd.
Status text_source_open(int *fd, const char *path, const volatile sig_atomic_t *stop);

// Can only be read once, so not to have a look at it first.
bool text_source_is_read_once(const char *path);

// paths_expand() of base/paths.h, with "-" as itself and at most once.
Status text_source_expand(PathList *out, char *const *patterns, int n_patterns);

#endif
