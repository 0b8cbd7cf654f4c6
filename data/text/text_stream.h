// The bytes of a text file, whether it is plain, gzip or zstd, which its content tells and not its
// name.
//
//     TextStream stream;
//     TRY(text_stream_open(&stream, fd, path, NULL)); // owns fd, also on failure
//     while (!stream.at_end)
//         n = text_stream_read(&stream, block, sizeof block);
//     if (stream.damage[0] != '\0')
//         return fail(BAD_INPUT, "%s: %s", path, stream.damage);
//     text_stream_close(&stream);
//
// Several gzip members or zstd frames one after another are one text; zeros after the last member,
// as tapes and archives have them, and zstd's skippable frames are left out. Anything else behind
// them is damage, not text to be dropped. Works on pipes: nothing is read twice. Memory: two
// blocks, and for zstd the window of the frame, at most 128 MiB, as zstd -d has it.
//
//     file --> raw --inflate()--> the caller        gzip
//     file --> raw -------------> the caller        plain
//              either of them --> inner --ZSTD--> the caller
#ifndef MHA2MLA_DATA_TEXT_TEXT_STREAM_H
#define MHA2MLA_DATA_TEXT_TEXT_STREAM_H

#include "base/status.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#ifndef TEXT_BLOCK_BYTES // the fuzz build sets few: more blocks to a text, less to allocate
#define TEXT_BLOCK_BYTES (1 << 17)
#endif

typedef struct TextBlock {
    char *bytes; // owned [TEXT_BLOCK_BYTES]
    size_t size, taken;
} TextBlock;

typedef struct TextStream {
    bool at_end;      // nothing is left, or nothing can be read any more
    char damage[256]; // why it ended early: "cannot be read: ..."; "": it did not
    int fd;           // owned
    int64_t n_read;   // bytes of the file so far
    void *gzip;       // owned: a z_stream; NULL until the file has turned out to be gzip
    void *zstd;       // owned: a ZSTD_DStream; likewise
    TextBlock raw;    // of the file
    TextBlock inner;  // with gzip undone, first to be looked at
    bool is_begun;    // the first blocks are read
    bool is_raw_end;  // the file has no more; the raw block may hold some
    bool is_drained;  // nor have the stages before the inner block
    bool is_in_member, is_in_frame;    // of gzip, of zstd
    const volatile sig_atomic_t *stop; // borrowed; may be NULL
} TextStream;

// Takes over `fd`, positioned at the start. `stop` (may be NULL), when it is set, makes a signal
// end a read that waits. FAILED without memory.
Status text_stream_open(TextStream *out, int fd, const char *path,
                        const volatile sig_atomic_t *stop);

// Fills `out` [size_bytes] as far as the text goes; returns the bytes, fewer only at the end. What
// comes before damage is handed out.
size_t text_stream_read(TextStream *stream, void *out, size_t size_bytes);

// Bytes of the file taken so far, up to a block ahead of what was handed out.
int64_t text_stream_offset_bytes(const TextStream *stream);

void text_stream_close(TextStream *stream); // a zeroed one is allowed

#endif
