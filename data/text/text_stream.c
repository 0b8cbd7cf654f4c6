// gzread() passes files that are not gzip through unchanged, so zstd is a second stage behind it,
// and all three kinds take one path.
#include "data/text/text_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum {
    BLOCK_BYTES = TEXT_BLOCK_BYTES,
    WINDOW_LOG = 27, // 128 MiB, the most that decoders accept without being told: RFC 8878, 3.1.1.1
};

Status text_stream_open(TextStream *out, int fd, const char *path)
{
    TextStream stream = {.input = malloc(BLOCK_BYTES)};
    if (stream.input != NULL)
        stream.file = gzdopen(fd, "rb"); // owns fd then
    if (stream.file == NULL) {
        close(fd);
        text_stream_close(&stream);
        return fail(FAILED, "%s: out of memory", path);
    }
    gzbuffer(stream.file, BLOCK_BYTES);
    *out = stream;
    return OK;
}

// The first damage is the one to report: what follows it is no surprise.
static void note_damage(TextStream *stream, const char *reason, const char *advice)
{
    if (stream->damage[0] == '\0')
        snprintf(stream->damage, sizeof stream->damage, "cannot be read: %.140s%s", reason, advice);
}

// Keeps why zlib failed, without the name it puts before its text.
static void note_gzip_damage(TextStream *stream)
{
    int code = Z_OK;
    const char *text = gzerror(stream->file, &code);
    if (strncmp(text, "<fd:", 4) == 0)
        text += strcspn(text, " ") + 1; // "<fd:3>: " and the reason
    note_damage(stream, text, code == Z_BUF_ERROR ? " (truncated gzip; fetch the file again)" : "");
}

static void note_zstd_damage(TextStream *stream, size_t code)
{
    switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_frameParameter_windowTooLarge:
        note_damage(stream, "its zstd window is larger than 128 MiB",
                    "; decompress it with zstd -d --long=31");
        return;
    case ZSTD_error_dictionary_wrong:
        note_damage(stream, "it was compressed with a dictionary",
                    "; decompress it with zstd -d -D DICTIONARY");
        return;
    case ZSTD_error_prefix_unknown:
        note_damage(stream, "something else follows a zstd frame",
                    " (damaged zstd; fetch the file again)");
        return;
    default:
        note_damage(stream, ZSTD_getErrorName(code), " (damaged zstd; fetch the file again)");
        return;
    }
}

// Bytes of the file with gzip undone, fewer than `size_bytes` only at its end.
static size_t read_file(TextStream *stream, void *out, size_t size_bytes)
{
    const int n = gzread(stream->file, out, (unsigned)size_bytes);
    const bool is_short = n < 0 || (size_t)n < size_bytes;
    int code = Z_OK;
    // gzread() calls a file that ends within a gzip member a short read, not an error.
    if (is_short)
        gzerror(stream->file, &code);
    if (n < 0 || code != Z_OK)
        note_gzip_damage(stream);
    stream->is_drained = is_short;
    return n > 0 ? (size_t)n : 0;
}

static void refill(TextStream *stream)
{
    stream->input_bytes = read_file(stream, stream->input, BLOCK_BYTES);
    stream->input_taken = 0;
}

// Frames begin with their own magic number, skippable ones with one of 16: RFC 8878, 3.1.
static bool is_zstd(const char *bytes, size_t size_bytes)
{
    const unsigned char *b = (const unsigned char *)bytes;
    return size_bytes >= 4 && (memcmp(b, "\x28\xb5\x2f\xfd", 4) == 0 ||
                               ((b[0] & 0xf0) == 0x50 && memcmp(b + 1, "\x2a\x4d\x18", 3) == 0));
}

// The first block is looked at before any of it is handed out.
static void begin(TextStream *stream)
{
    stream->is_begun = true;
    refill(stream);
    if (!is_zstd(stream->input, stream->input_bytes))
        return;
    stream->zstd = ZSTD_createDStream();
    if (stream->zstd != NULL &&
        !ZSTD_isError(ZSTD_DCtx_setParameter(stream->zstd, ZSTD_d_windowLogMax, WINDOW_LOG)))
        return;
    note_damage(stream, "out of memory for zstd", "");
    stream->at_end = true;
}

// What the first block has left, then straight from the file.
static size_t read_plain(TextStream *stream, char *out, size_t size_bytes)
{
    const size_t held = stream->input_bytes - stream->input_taken;
    const size_t n = held < size_bytes ? held : size_bytes;
    memcpy(out, stream->input + stream->input_taken, n);
    stream->input_taken += n;
    if (n == size_bytes)
        return n;
    const size_t more = stream->is_drained ? 0 : read_file(stream, out + n, size_bytes - n);
    stream->at_end = stream->is_drained;
    return n + more;
}

// One call of the decoder. Between two frames it must not be called without input: it would ask for
// the next one's header.
static size_t read_zstd(TextStream *stream, char *out, size_t size_bytes)
{
    if (stream->input_taken == stream->input_bytes && !stream->is_drained)
        refill(stream);
    const bool is_input_left = stream->input_taken < stream->input_bytes;
    if (!is_input_left && !stream->is_inside) {
        stream->at_end = stream->is_drained;
        return 0;
    }
    ZSTD_inBuffer input = {stream->input, stream->input_bytes, stream->input_taken};
    ZSTD_outBuffer output = {out, size_bytes, 0};
    const size_t code = ZSTD_decompressStream(stream->zstd, &output, &input);
    stream->input_taken = input.pos;
    if (ZSTD_isError(code)) {
        note_zstd_damage(stream, code);
        stream->at_end = true;
        return output.pos;
    }
    stream->is_inside = code != 0;
    // Room that stays means that the decoder has given all it can make of its input.
    if (code != 0 && stream->is_drained && input.pos == input.size && output.pos < size_bytes) {
        note_damage(stream, "unexpected end of file", " (truncated zstd; fetch the file again)");
        stream->at_end = true;
    }
    return output.pos;
}

size_t text_stream_read(TextStream *stream, void *out, size_t size_bytes)
{
    size_t n = 0;
    if (!stream->is_begun)
        begin(stream);
    while (n < size_bytes && !stream->at_end) {
        char *rest = (char *)out + n;
        n += stream->zstd != NULL ? read_zstd(stream, rest, size_bytes - n)
                                  : read_plain(stream, rest, size_bytes - n);
    }
    return n;
}

int64_t text_stream_offset_bytes(const TextStream *stream)
{
    const int64_t offset = (int64_t)gzoffset(stream->file);
    return offset > 0 ? offset : 0; // pipes have none
}

void text_stream_close(TextStream *stream)
{
    if (stream->file != NULL)
        gzclose(stream->file);
    ZSTD_freeDStream(stream->zstd); // NULL is allowed
    free(stream->input);
    *stream = (TextStream){0};
}
