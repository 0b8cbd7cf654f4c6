// Growing byte buffers, UTF-8, and GPT-2's byte-level alphabet. Written out rather than taken from
// a library where the exact rule matters: how many U+FFFD stand for a broken sequence, and which
// characters are white space, change the ids.
//
// Sizes stay below 2 GiB (bytes_reserve() refuses more), so that positions in a text fit in 32
// bits.
#define _GNU_SOURCE // memmem
#include "data/tokenizer/tokenizer_text.h"

#include <stdlib.h>
#include <string.h>

Status bytes_reserve(Bytes *bytes, int64_t more)
{
    if (more <= bytes->capacity - bytes->size)
        return OK;
    if (more > INT32_MAX - bytes->size)
        return fail(BAD_INPUT, "text of 2 GiB or more; split it into smaller documents");
    // At least doubled, so that appending costs the same per byte however long the text.
    int64_t capacity = bytes->size + more;
    if (capacity < 2 * bytes->capacity)
        capacity = 2 * bytes->capacity;
    char *data = realloc(bytes->data, (size_t)capacity);
    if (data == NULL)
        return fail(FAILED, "no memory for %lld bytes of text", (long long)capacity);
    bytes->data = data;
    bytes->capacity = capacity;
    return OK;
}

// `data` may be NULL where size is 0, as an empty map's or list's is.
Status bytes_append(Bytes *bytes, const char *data, int64_t size)
{
    if (size == 0)
        return OK;
    TRY(bytes_reserve(bytes, size));
    memcpy(bytes->data + bytes->size, data, (size_t)size);
    bytes->size += size;
    return OK;
}

void bytes_release(Bytes *bytes)
{
    free(bytes->data);
    *bytes = (Bytes){0};
}

// Replacements multiply: ten steps that each double a text would make it a thousand times as long.
Status bytes_check_growth(const Bytes *bytes, int64_t from_bytes)
{
    enum { MAX_FACTOR = 64, FREE_BYTES = 1 << 20 }; // NFKD's largest factor is 11
    if (bytes->size <= FREE_BYTES || bytes->size / MAX_FACTOR <= from_bytes)
        return OK;
    return fail(BAD_INPUT,
                "the tokenizer's steps make %lld bytes of a text of %lld; check the replacements "
                "in tokenizer.json",
                (long long)bytes->size, (long long)from_bytes);
}

// memmem() costs more than the search where matches are dense, as spaces are.
static const char *find(const char *text, int64_t size, const Bytes *pattern)
{
    if (pattern->size == 1)
        return memchr(text, pattern->data[0], (size_t)size);
    return memmem(text, (size_t)size, pattern->data, (size_t)pattern->size);
}

Status bytes_append_replaced(Bytes *out, const char *text, int64_t size, const Bytes *pattern,
                             const Bytes *content)
{
    CHECK(pattern->size > 0, "empty pattern");
    const char *end = text + size;
    TRY(bytes_reserve(out, size));
    while (text < end) {
        const char *match = find(text, end - text, pattern);
        TRY(bytes_append(out, text, (match != NULL ? match : end) - text));
        if (match == NULL)
            return OK;
        TRY(bytes_append(out, content->data, content->size));
        text = match + pattern->size;
    }
    return OK;
}

// RFC 3629, table of well-formed sequences: only the second byte has a range that depends on the
// first.
int utf8_check(const char *text, int64_t size)
{
    const unsigned char *p = (const unsigned char *)text;
    unsigned char min = 0x80, max = 0xBF; // of the second byte
    int more;
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xC2 && p[0] <= 0xDF)
        more = 1;
    else if (p[0] >= 0xE0 && p[0] <= 0xEF)
        more = 2;
    else if (p[0] >= 0xF0 && p[0] <= 0xF4)
        more = 3;
    else
        return -1;
    if (p[0] == 0xE0)
        min = 0xA0; // no overlong forms
    else if (p[0] == 0xED)
        max = 0x9F; // no surrogates
    else if (p[0] == 0xF0)
        min = 0x90;
    else if (p[0] == 0xF4)
        max = 0x8F; // nothing above U+10FFFF
    for (int i = 1; i <= more; i++) {
        if (i >= size || p[i] < min || p[i] > max)
            return -i;
        min = 0x80;
        max = 0xBF;
    }
    return more + 1;
}

int64_t utf8_valid_bytes(const char *text, int64_t size)
{
    int64_t i = 0;
    while (i < size) {
        uint64_t eight; // ASCII, most of most texts, is passed eight bytes at a time
        if (size - i >= 8) {
            memcpy(&eight, text + i, 8);
            if ((eight & 0x8080808080808080u) == 0) {
                i += 8;
                continue;
            }
        }
        int length = utf8_check(text + i, size - i);
        if (length < 0)
            return i;
        i += length;
    }
    return size;
}

// One U+FFFD per maximal subpart of an ill-formed sequence (Unicode, section 3.9), as Rust's
// from_utf8_lossy does.
Status utf8_append_repaired(Bytes *out, const char *text, int64_t size)
{
    while (size > 0) {
        int64_t valid = utf8_valid_bytes(text, size);
        TRY(bytes_append(out, text, valid));
        text += valid;
        size -= valid;
        if (size == 0)
            break;
        int invalid = -utf8_check(text, size); // "maximal subpart": one U+FFFD for all of it
        TRY(bytes_append(out, "\xEF\xBF\xBD", 3));
        text += invalid;
        size -= invalid;
    }
    return OK;
}

int64_t utf8_decided_bytes(const char *text, int64_t size)
{
    int64_t at = 0;
    while (at < size) {
        at += utf8_valid_bytes(text + at, size - at);
        const int64_t invalid = at < size ? -utf8_check(text + at, size - at) : 0;
        if (invalid > 0 && at + invalid == size)
            return at;
        at += invalid;
    }
    return size;
}

// By the first byte of a sequence that is known to be valid.
int utf8_length(unsigned char first)
{
    if (first < 0x80)
        return 1;
    return first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

// The text is valid UTF-8 by now, so nothing is checked.
uint32_t utf8_code(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    switch (utf8_length(p[0])) {
    case 1:
        return p[0];
    case 2:
        return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    case 3:
        return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    default:
        return (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
    }
}

// Unicode's White_Space, as Rust's char::is_whitespace has it.
bool utf8_is_space(uint32_t code)
{
    return (code >= 0x9 && code <= 0xD) || code == 0x20 || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

// Bytes that are printable in Latin-1 stand for themselves; the 68 others follow from U+0100 on,
// in their order: 0x00-0x20, 0x7F-0xA0, 0xAD.
int byte_level_put(unsigned char byte, char out[2])
{
    unsigned code = byte;
    if (byte <= 0x20)
        code = 0x100u + byte;
    else if (byte >= 0x7F && byte <= 0xA0)
        code = 0x121u + (byte - 0x7Fu);
    else if (byte == 0xAD)
        code = 0x143;
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xC0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3F));
    return 2;
}

// The inverse; -1 for a character that stands for no byte.
int byte_level_byte(uint32_t code)
{
    if ((code >= '!' && code <= '~') || (code >= 0xA1 && code <= 0xFF && code != 0xAD))
        return (int)code;
    if (code >= 0x100 && code <= 0x120)
        return (int)code - 0x100;
    if (code >= 0x121 && code <= 0x142)
        return (int)code - 0x121 + 0x7F;
    return code == 0x143 ? 0xAD : -1;
}
