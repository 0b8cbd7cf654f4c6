// Two stages behind each other, each of which may be absent, so that gzip of zstd is read too. The
// file is read here and not by gzread(), which drops without a word what follows a gzip member.
#include "data/text/text_stream.h"

#include <errno.h>
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

Status text_stream_open(TextStream *out, int fd, const char *path,
                        const volatile sig_atomic_t *stop)
{
    TextStream stream = {.fd = fd, .stop = stop};
    stream.raw.bytes = malloc(BLOCK_BYTES);
    stream.inner.bytes = malloc(BLOCK_BYTES);
    if (stream.raw.bytes == NULL || stream.inner.bytes == NULL) {
        free(stream.raw.bytes);
        free(stream.inner.bytes);
        close(fd);
        return fail(FAILED, "%s: out of memory", path);
    }
    *out = stream;
    return OK;
}

// The first damage is the one to report: what follows it is no surprise.
static void note_damage(TextStream *stream, const char *reason, const char *advice)
{
    if (stream->damage[0] == '\0')
        snprintf(stream->damage, sizeof stream->damage, "cannot be read: %.140s%s", reason, advice);
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

// From the file itself, fewer than `size_bytes` only at its end. A signal ends a wait if it asks to
// stop.
static size_t read_raw(TextStream *stream, char *out, size_t size_bytes)
{
    size_t n = 0;
    while (n < size_bytes && !stream->is_raw_end) {
        const ssize_t got = read(stream->fd, out + n, size_bytes - n);
        if (got < 0 && errno == EINTR && (stream->stop == NULL || *stream->stop == 0))
            continue;
        if (got < 0)
            note_damage(stream, strerror(errno), "");
        stream->is_raw_end = got <= 0;
        n += got > 0 ? (size_t)got : 0;
    }
    stream->n_read += (int64_t)n;
    return n;
}

static size_t held_bytes(const TextBlock *block)
{
    return block->size - block->taken;
}

// What the block holds goes to its start, and the file fills the rest.
static void refill_raw(TextStream *stream)
{
    TextBlock *raw = &stream->raw;
    const size_t held = held_bytes(raw);
    memmove(raw->bytes, raw->bytes + raw->taken, held);
    raw->taken = 0;
    raw->size = held + read_raw(stream, raw->bytes + held, BLOCK_BYTES - held);
}

static bool is_gzip(const TextBlock *block)
{
    return held_bytes(block) >= 2 && memcmp(block->bytes + block->taken, "\x1f\x8b", 2) == 0;
}

// Between two members: whether another one begins.
static bool begin_member(TextStream *stream)
{
    TextBlock *raw = &stream->raw;
    for (;;) {
        while (raw->taken < raw->size && raw->bytes[raw->taken] == '\0')
            raw->taken++;
        if (held_bytes(raw) >= 2 || stream->is_raw_end)
            break;
        refill_raw(stream);
    }
    stream->is_in_member = is_gzip(raw);
    if (stream->is_in_member)
        inflateReset(stream->gzip);
    else if (held_bytes(raw) > 0)
        note_damage(stream, "something else follows a gzip member",
                    " (damaged gzip; fetch the file again)");
    return stream->is_in_member;
}

// One call of the decoder; false when there is no more to come.
static bool inflate_some(TextStream *stream)
{
    TextBlock *raw = &stream->raw;
    z_stream *gzip = stream->gzip;
    if (!stream->is_in_member && !begin_member(stream))
        return false;
    if (held_bytes(raw) == 0)
        refill_raw(stream);
    if (held_bytes(raw) == 0) {
        note_damage(stream, "unexpected end of file", " (truncated gzip; fetch the file again)");
        return false;
    }
    gzip->next_in = (Bytef *)raw->bytes + raw->taken;
    gzip->avail_in = (uInt)held_bytes(raw);
    const int code = inflate(gzip, Z_NO_FLUSH);
    raw->taken = raw->size - gzip->avail_in;
    stream->is_in_member = code != Z_STREAM_END;
    if (code == Z_OK || code == Z_STREAM_END)
        return true;
    note_damage(stream, gzip->msg != NULL ? gzip->msg : zError(code),
                " (damaged gzip; fetch the file again)");
    return false;
}

// Bytes of the file with gzip undone, fewer than `size_bytes` only at its end.
static size_t read_file(TextStream *stream, char *out, size_t size_bytes)
{
    TextBlock *raw = &stream->raw;
    z_stream *gzip = stream->gzip;
    if (gzip == NULL) {
        const size_t held = held_bytes(raw), n = held < size_bytes ? held : size_bytes;
        memcpy(out, raw->bytes + raw->taken, n);
        raw->taken += n;
        const size_t more = read_raw(stream, out + n, size_bytes - n);
        stream->is_drained = n + more < size_bytes;
        return n + more;
    }
    gzip->next_out = (Bytef *)out;
    gzip->avail_out = (uInt)size_bytes;
    while (gzip->avail_out > 0 && !stream->is_drained)
        stream->is_drained = !inflate_some(stream);
    return size_bytes - gzip->avail_out;
}

static void refill_inner(TextStream *stream)
{
    stream->inner.size = read_file(stream, stream->inner.bytes, BLOCK_BYTES);
    stream->inner.taken = 0;
}

// Frames begin with their own magic number, skippable ones with one of 16: RFC 8878, 3.1.
static bool is_zstd(const char *bytes, size_t size_bytes)
{
    const unsigned char *b = (const unsigned char *)bytes;
    return size_bytes >= 4 && (memcmp(b, "\x28\xb5\x2f\xfd", 4) == 0 ||
                               ((b[0] & 0xf0) == 0x50 && memcmp(b + 1, "\x2a\x4d\x18", 3) == 0));
}

// Windows and headers as gzip has them: RFC 1952.
static bool start_gzip(TextStream *stream)
{
    enum { GZIP_WINDOW = MAX_WBITS + 16 };
    stream->gzip = calloc(1, sizeof(z_stream));
    return stream->gzip != NULL && inflateInit2((z_stream *)stream->gzip, GZIP_WINDOW) == Z_OK;
}

static bool start_zstd(TextStream *stream)
{
    stream->zstd = ZSTD_createDStream();
    return stream->zstd != NULL &&
           !ZSTD_isError(ZSTD_DCtx_setParameter(stream->zstd, ZSTD_d_windowLogMax, WINDOW_LOG));
}

// The first block of each stage is looked at before any of it is handed out.
static void begin(TextStream *stream)
{
    stream->is_begun = true;
    refill_raw(stream);
    bool is_ready = !is_gzip(&stream->raw) || start_gzip(stream);
    if (is_ready) {
        refill_inner(stream);
        is_ready = !is_zstd(stream->inner.bytes, stream->inner.size) || start_zstd(stream);
    }
    if (!is_ready)
        note_damage(stream, "out of memory", "");
    stream->at_end = !is_ready;
}

// What the first block has left, then straight from the stage before.
static size_t read_plain(TextStream *stream, char *out, size_t size_bytes)
{
    TextBlock *inner = &stream->inner;
    const size_t held = held_bytes(inner), n = held < size_bytes ? held : size_bytes;
    memcpy(out, inner->bytes + inner->taken, n);
    inner->taken += n;
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
    TextBlock *inner = &stream->inner;
    if (held_bytes(inner) == 0 && !stream->is_drained)
        refill_inner(stream);
    if (held_bytes(inner) == 0 && !stream->is_in_frame) {
        stream->at_end = stream->is_drained;
        return 0;
    }
    ZSTD_inBuffer input = {inner->bytes, inner->size, inner->taken};
    ZSTD_outBuffer output = {out, size_bytes, 0};
    const size_t code = ZSTD_decompressStream(stream->zstd, &output, &input);
    inner->taken = input.pos;
    if (ZSTD_isError(code)) {
        note_zstd_damage(stream, code);
        stream->at_end = true;
        return output.pos;
    }
    stream->is_in_frame = code != 0;
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
    return stream->n_read - (int64_t)held_bytes(&stream->raw);
}

void text_stream_close(TextStream *stream)
{
    if (stream->raw.bytes == NULL) // never opened
        return;
    close(stream->fd);
    if (stream->gzip != NULL)
        inflateEnd(stream->gzip);
    free(stream->gzip);
    ZSTD_freeDStream(stream->zstd); // NULL is allowed
    free(stream->raw.bytes);
    free(stream->inner.bytes);
    *stream = (TextStream){0};
}
