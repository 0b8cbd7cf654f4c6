// The bytes of a text file, whether it is plain, gzip or zstd, which its content tells and not its
// name.
//
//     TextStream stream;
//     TRY(text_stream_open(&stream, fd, path));      // owns fd, also on failure
//     while (!stream.at_end)
//         n = text_stream_read(&stream, block, sizeof block);
//     if (stream.damage[0] != '\0')
//         return fail(BAD_INPUT, "%s: %s", path, stream.damage);
//     text_stream_close(&stream);
//
// Several gzip members or zstd frames one after another are one text, and zstd's skippable frames
// are left out. Works on pipes: nothing is read twice. Memory: two blocks, and for zstd the window
// of the frame, at most 128 MiB, as zstd -d has it.
//
//     file --gzread()--> plain bytes, or those of gzip undone --> the caller
//                        zstd's, which gzread() leaves alone --> input --ZSTD--> the caller
#ifndef MHA2MLA_DATA_TEXT_TEXT_STREAM_H
#define MHA2MLA_DATA_TEXT_TEXT_STREAM_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#ifndef TEXT_BLOCK_BYTES // the fuzz build sets few: more blocks to a text, less to allocate
#define TEXT_BLOCK_BYTES (1 << 17)
#endif

typedef struct TextStream {
    bool at_end;      // nothing is left, or nothing can be read any more
    char damage[256]; // why it ended early: "cannot be read: ..."; "": it did not
    void *file;       // owned: a gzFile
    void *zstd;       // owned: a ZSTD_DStream; NULL until the file has turned out to be zstd
    char *input;      // owned [TEXT_BLOCK_BYTES]: read from the file, first to be looked at
    size_t input_bytes, input_taken;
    bool is_begun;   // the first block is read
    bool is_drained; // the file has no more; the input may hold some
    bool is_inside;  // of a zstd frame
} TextStream;

// Takes over `fd`, positioned at the start. FAILED without memory.
Status text_stream_open(TextStream *out, int fd, const char *path);

// Fills `out` [size_bytes] as far as the text goes; returns the bytes, fewer only at the end. What
// comes before damage is handed out.
size_t text_stream_read(TextStream *stream, void *out, size_t size_bytes);

// The place in the file, up to a block ahead of what was handed out; 0 for a pipe.
int64_t text_stream_offset_bytes(const TextStream *stream);

void text_stream_close(TextStream *stream); // a zeroed one is allowed

#endif
