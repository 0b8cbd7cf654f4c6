// Standard input is read through a descriptor of its own, so that closing a text never closes the
// process's descriptor 0, which the next file to be opened would get.
#include "data/text/text_source.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool text_source_is_stdin(const char *path)
{
    return strcmp(path, "-") == 0;
}

const char *text_source_name(const char *path)
{
    return text_source_is_stdin(path) ? "stdin" : path;
}

static bool ends_with(const char *name, size_t length, const char *ending)
{
    size_t n = strlen(ending);
    return length >= n && memcmp(name + length - n, ending, n) == 0;
}

// The kind of file by its ending; false if it is none of ours.
// By name and not by content: a .txt may well begin with a brace.
static bool find_kind(const char *path, bool *is_jsonl)
{
    size_t length = strlen(path);
    if (ends_with(path, length, ".gz"))
        length -= 3;
    else if (ends_with(path, length, ".zst"))
        length -= 4;
    // Data sets such as C4 name their JSON lines .json.gz.
    *is_jsonl = text_source_is_stdin(path) || ends_with(path, length, ".jsonl") ||
                ends_with(path, length, ".json");
    return *is_jsonl || ends_with(path, length, ".txt");
}

Status text_source_is_jsonl(bool *out, const char *path, TextFormat format)
{
    const size_t length = strlen(path);
    if (length >= PATH_BYTES)
        return fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
    if (format != TEXT_BY_NAME) {
        *out = format == TEXT_JSONL;
        return OK;
    }
    if (find_kind(path, out))
        return OK;
    const char *hint = "; others need --format";
    if (ends_with(path, length, ".xz"))
        hint = "; decompress this one with xz -d";
    else if (ends_with(path, length, ".bz2"))
        hint = "; decompress this one with bzip2 -d";
    else if (ends_with(path, length, ".parquet"))
        hint = "; write the text column of this one as JSON lines, see docs/data.md";
    return fail(BAD_INPUT,
                "%s: the name of a text file ends in .jsonl, .json or .txt, or in one of these and "
                ".gz or .zst%s",
                path, hint);
}

static Status open_stdin(int *out)
{
    const int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (fd < 0)
        return fail(BAD_INPUT, "stdin: cannot be read: %s", strerror(errno));
    if (isatty(fd)) {
        close(fd);
        return fail(BAD_INPUT, "stdin: is a terminal; pipe text into the command");
    }
    *out = fd;
    return OK;
}

static bool is_stopped(const volatile sig_atomic_t *stop)
{
    return stop != NULL && *stop != 0;
}

static bool is_pipe(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

// Opened without waiting, so that a request to stop is seen before a writer comes; then reads block
// as on files.
Status text_source_open(int *out, const char *path, const volatile sig_atomic_t *stop)
{
    enum { LOOK_MS = 200 };
    int fd = -1;
    if (text_source_is_stdin(path))
        TRY(open_stdin(&fd));
    else if (file_is_dir(path))
        return fail(BAD_INPUT, "%s: is a directory, not a text file", path);
    else
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fail(BAD_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    while (is_pipe(fd) && !is_stopped(stop) && poll(&ready, 1, LOOK_MS) <= 0)
        ;
    if (is_pipe(fd) && is_stopped(stop)) {
        close(fd);
        return fail(FAILED, "%s: interrupted while it was read", text_source_name(path));
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    *out = fd;
    return OK;
}

bool text_source_is_read_once(const char *path)
{
    struct stat st;
    return text_source_is_stdin(path) || (stat(path, &st) == 0 && S_ISFIFO(st.st_mode));
}

Status text_source_expand(PathList *out, char *const *patterns, int n_patterns)
{
    PathList list = {0};
    Status status;
    int n_stdin = 0;
    for (int i = 0; i < n_patterns; i++) {
        const bool is_stdin = text_source_is_stdin(patterns[i]);
        n_stdin += is_stdin;
        if (n_stdin > 1)
            TRY_GOTO(release, fail(BAD_INPUT, "- (stdin) is named twice, but can be read once"));
        TRY_GOTO(release, is_stdin ? paths_append(&list, patterns[i])
                                   : paths_append_matches(&list, patterns[i]));
    }
    *out = list;
    return OK;
release:
    paths_release(&list);
    return status;
}
