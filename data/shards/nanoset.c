// pread() of a few thousand ids at a time: random reads of a large file should not depend on how
// much of it is mapped or cached, and a file that shrinks while it is read is an error instead of a
// SIGBUS.
#include "data/shards/nanoset.h"

#include "base/file.h"
#include "base/progress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { BLOCK_VALUES = 4096, OFFSET_BYTES = 8 }; // a block lies on the stack: 32 KiB at most

struct Nanoset {
    char path[PATH_BYTES];
    int file; // -1: none
    int token_bytes;
    int64_t n_tokens, n_documents;
    uint32_t documents_crc32;
};

// A directory or a pipe would fail later with a message that names a byte; refused here by kind.
static Status open_file(int *file, int64_t *size_bytes, const char *path)
{
    struct stat st;
    TRY(file_open(file, path));
    if (fstat(*file, &st) != 0) {
        close(*file);
        *file = -1;
        return fail(FAILED, "%s: cannot be read: %s", path, strerror(errno));
    }
    *size_bytes = (int64_t)st.st_size;
    return OK;
}

// All of `size_bytes` from `offset` on: read() may return less at a time.
static Status read_fully(int file, const char *path, uint8_t *out, int64_t size_bytes,
                         int64_t offset)
{
    for (int64_t done = 0; done < size_bytes;) {
        const ssize_t n = pread(file, out + done, (size_t)(size_bytes - done), offset + done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(FAILED, "%s: cannot be read at byte %lld: %s", path,
                        (long long)(offset + done), strerror(errno));
        if (n == 0)
            return fail(BAD_INPUT, "%s: ends at byte %lld; it became shorter while in use", path,
                        (long long)(offset + done));
        done += n;
    }
    return OK;
}

// Little-endian in the file, whatever the machine is.
static uint64_t value_at(const uint8_t *bytes, int n_bytes)
{
    uint64_t value = 0;
    for (int b = 0; b < n_bytes; b++)
        value |= (uint64_t)bytes[b] << (8 * b);
    return value;
}

// The ends of the documents never descend; the last one is the number of tokens.
static Status check_ends(Nanoset *nanoset, int file, const char *path, int64_t n_documents)
{
    uint8_t block[BLOCK_VALUES * OFFSET_BYTES];
    uint64_t before = 0;
    for (int64_t first = 0; first < n_documents; first += BLOCK_VALUES) {
        const int64_t count =
            n_documents - first < BLOCK_VALUES ? n_documents - first : BLOCK_VALUES;
        progress_beat();
        TRY(read_fully(file, path, block, count * OFFSET_BYTES, first * OFFSET_BYTES));
        for (int64_t i = 0; i < count; i++) {
            const uint64_t end = value_at(block + i * OFFSET_BYTES, OFFSET_BYTES);
            // The bound keeps products with a token's size in int64_t.
            if (end < before || end > INT64_MAX / 8)
                return fail(BAD_INPUT,
                            "%s: document %lld ends at token %llu, the one before at %llu; not an "
                            "index, or damaged",
                            path, (long long)(first + i), (unsigned long long)end,
                            (unsigned long long)before);
            before = end;
        }
        // Part of the run's fingerprint: a changed text changes where its documents end.
        nanoset->documents_crc32 =
            (uint32_t)crc32(nanoset->documents_crc32, block, (uInt)(count * OFFSET_BYTES));
    }
    nanoset->n_tokens = (int64_t)before;
    return OK;
}

// The index is read once, for its checks and its checksum, and not kept: training needs no document
// borders.
static Status read_index(Nanoset *nanoset)
{
    char path[PATH_BYTES];
    int file;
    int64_t size_bytes = 0;
    if (snprintf(path, sizeof path, "%s.index", nanoset->path) >= PATH_BYTES)
        return fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
    if (!file_exists(path))
        return fail(BAD_INPUT, "%s: missing; a Nanoset is NAME.ds and NAME.ds.index together",
                    path);
    TRY(open_file(&file, &size_bytes, path));
    Status status = OK;
    if (size_bytes == 0 || size_bytes % OFFSET_BYTES != 0)
        status = fail(BAD_INPUT, "%s: %lld bytes are not one or more uint64", path,
                      (long long)size_bytes);
    else
        status = check_ends(nanoset, file, path, size_bytes / OFFSET_BYTES);
    nanoset->n_documents = size_bytes / OFFSET_BYTES;
    close(file);
    return status;
}

// The width of a token is not stored: it follows from the size of the file and the last end in the
// index.
static Status open_tokens(Nanoset *nanoset)
{
    int64_t size_bytes = 0;
    TRY(open_file(&nanoset->file, &size_bytes, nanoset->path));
    const int64_t n = nanoset->n_tokens;
    if (n == 0)
        return fail(BAD_INPUT, "%s: empty: its documents have no tokens", nanoset->path);
    // datatrove writes 2 bytes for vocabularies up to 65536 and 4 above, so no other width occurs.
    nanoset->token_bytes = size_bytes == 2 * n ? 2 : 4; // 4 n is checked next
    if (size_bytes != nanoset->token_bytes * n)
        return fail(BAD_INPUT,
                    "%s: has %lld bytes, its index ends at token %lld, which takes %lld or %lld "
                    "bytes; truncated, or the index of another file",
                    nanoset->path, (long long)size_bytes, (long long)n, (long long)(2 * n),
                    (long long)(4 * n));
    return OK;
}

Status nanoset_open(Nanoset **out, const char *path)
{
    Nanoset *nanoset = calloc(1, sizeof *nanoset);
    if (nanoset == NULL)
        return fail(FAILED, "%s: out of memory", path);
    nanoset->file = -1;
    Status status;
    if (snprintf(nanoset->path, PATH_BYTES, "%s", path) >= PATH_BYTES) {
        status = fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
        goto close;
    }
    TRY_GOTO(close, read_index(nanoset));
    TRY_GOTO(close, open_tokens(nanoset));
    *out = nanoset;
    return OK;
close:
    nanoset_close(nanoset);
    return status;
}

int64_t nanoset_n_tokens(const Nanoset *nanoset)
{
    return nanoset->n_tokens;
}

int64_t nanoset_n_documents(const Nanoset *nanoset)
{
    return nanoset->n_documents;
}

int nanoset_token_bytes(const Nanoset *nanoset)
{
    return nanoset->token_bytes;
}

uint32_t nanoset_documents_crc32(const Nanoset *nanoset)
{
    return nanoset->documents_crc32;
}

const char *nanoset_path(const Nanoset *nanoset)
{
    return nanoset->path;
}

// Ids are checked for the range of int32 here and against the vocabulary by source_read().
Status nanoset_read(Nanoset *nanoset, int64_t first, int64_t count, int32_t *out)
{
    CHECK(first >= 0 && count >= 0 && first <= nanoset->n_tokens - count,
          "%s: tokens %lld + %lld of %lld", nanoset->path, (long long)first, (long long)count,
          (long long)nanoset->n_tokens);
    // A sample is read with one or two system calls; the bytes are widened from the stack.
    uint8_t block[BLOCK_VALUES * 4];
    const int width = nanoset->token_bytes;
    for (int64_t done = 0; done < count; done += BLOCK_VALUES) {
        const int64_t n = count - done < BLOCK_VALUES ? count - done : BLOCK_VALUES;
        TRY(read_fully(nanoset->file, nanoset->path, block, n * width, (first + done) * width));
        for (int64_t i = 0; i < n; i++) {
            const uint64_t id = value_at(block + i * width, width);
            if (id > INT32_MAX)
                return fail(BAD_INPUT, "%s: token %lld is %llu, no id is that large; damaged?",
                            nanoset->path, (long long)(first + done + i), (unsigned long long)id);
            out[done + i] = (int32_t)id;
        }
    }
    return OK;
}

// The index is closed after its check; only the tokens stay open.
void nanoset_close(Nanoset *nanoset)
{
    if (nanoset == NULL)
        return;
    if (nanoset->file >= 0)
        close(nanoset->file);
    free(nanoset);
}
