#include "tests/support/testing_zip.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

typedef struct Bytes {
    unsigned char *out;
    size_t n;
} Bytes;

static void put(Bytes *to, const void *bytes, size_t size)
{
    memcpy(to->out + to->n, bytes, size);
    to->n += size;
}

static void put_number(Bytes *to, uint32_t value, int size)
{
    for (int i = 0; i < size; i++)
        to->out[to->n++] = (unsigned char)(value >> 8 * i & 255);
}

// What a local header and the directory's entry have in common.
static void put_common(Bytes *to, const ZipPart *part)
{
    put_number(to, 0, 2);       // version
    put_number(to, 0x0808, 2);  // flags: UTF-8, sizes behind the data too
    put(to, "\0\0\0\0\0\0", 6); // stored, no time
    put_number(to, (uint32_t)crc32(0, part->bytes, (uInt)part->size_bytes), 4);
    put_number(to, (uint32_t)part->size_bytes, 4);
    put_number(to, (uint32_t)part->size_bytes, 4);
    put_number(to, (uint32_t)strlen(part->name), 2);
}

size_t testing_zip(unsigned char out[TESTING_ZIP_BYTES], const ZipPart *parts, int n_parts)
{
    enum { MOST_PARTS = 8, EXTRA = 6 };
    uint32_t places[MOST_PARTS];
    size_t needed = 64;
    Bytes to = {out, 0};
    for (int i = 0; i < n_parts; i++)
        needed += 128 + 2 * strlen(parts[i].name) + parts[i].size_bytes;
    if (n_parts > MOST_PARTS || needed > TESTING_ZIP_BYTES)
        return 0;
    for (int i = 0; i < n_parts; i++) {
        places[i] = (uint32_t)to.n;
        put(&to, "PK\3\4", 4);
        put_common(&to, &parts[i]);
        put_number(&to, EXTRA, 2);
        put(&to, parts[i].name, strlen(parts[i].name));
        put(&to, "FB\2\0ZZ", EXTRA);
        put(&to, parts[i].bytes, parts[i].size_bytes);
    }
    const uint32_t start = (uint32_t)to.n;
    for (int i = 0; i < n_parts; i++) {
        put(&to, "PK\1\2\0\0", 6);
        put_common(&to, &parts[i]);
        put_number(&to, 0, 4); // lengths of extra field and comment
        put_number(&to, 0, 4); // volume, attributes
        put_number(&to, 0, 4);
        put_number(&to, places[i], 4);
        put(&to, parts[i].name, strlen(parts[i].name));
    }
    const uint32_t directory_bytes = (uint32_t)to.n - start;
    put(&to, "PK\5\6\0\0\0\0", 8);
    put_number(&to, (uint32_t)n_parts, 2);
    put_number(&to, (uint32_t)n_parts, 2);
    put_number(&to, directory_bytes, 4);
    put_number(&to, start, 4);
    put_number(&to, 0, 2);
    return to.n;
}

static void put_int(Bytes *to, int32_t value)
{
    put(to, "J", 1);
    put_number(to, (uint32_t)value, 4);
}

static void put_text(Bytes *to, const char *text)
{
    put(to, "X", 1);
    put_number(to, (uint32_t)strlen(text), 4);
    put(to, text, strlen(text));
}

size_t testing_pickle(unsigned char out[512], const PickleOf *of)
{
    static const char begin[] = "\x80\x02"
                                "ctorch._utils\n_rebuild_tensor_v2\nq\x01((",
                      end[] = "\x89"
                              "ccollections\nOrderedDict\nq\x02)RtR.";
    const int32_t *dims = of->dims, *strides = of->strides;
    const int32_t row = (int32_t)((uint32_t)dims[1] * (uint32_t)dims[2]);
    const int32_t fitting[3] = {row, dims[2], 1}; // of dims that overflow: any numbers
    Bytes to = {out, 0};
    char global[64];
    put(&to, begin, sizeof begin - 1);
    put_text(&to, "storage");
    snprintf(global, sizeof global, "ctorch\n%s\n", of->storage);
    put(&to, global, strlen(global));
    put_text(&to, "0");
    put_text(&to, "cpu");
    put_int(&to, of->n_stored == -1 ? dims[0] * row : of->n_stored);
    put(&to, "tQ", 2);
    put_int(&to, of->offset);
    for (int i = 0; i < 3; i++)
        put_int(&to, dims[i]);
    put(&to, "\x87", 1);
    for (int i = 0; i < 3; i++)
        put_int(&to, strides[i] == -1 ? fitting[i] : strides[i]);
    put(&to, "\x87", 1);
    put(&to, end, sizeof end - 1);
    return to.n;
}
