// The archive is what torch.save() writes: archive/data.pkl, archive/byteorder, archive/data/0 with
// the numbers, archive/version, then the directory of these. The pickle has protocol 2 and calls
// torch._utils._rebuild_tensor_v2(storage, offset, dims, strides, requires_grad, hooks).
#include "model/paper/torch_file.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { N_ENTRIES = 4, PICKLE_BYTES = 512, ZIP_VERSION = 10 };

typedef struct ZipEntry {
    const char *name;
    const void *bytes; // borrowed
    uint32_t size_bytes, crc32, offset;
} ZipEntry;

// ---- the pickle --------------------------------------------------------------------------------

typedef struct Pickle {
    unsigned char bytes[PICKLE_BYTES];
    size_t size_bytes;
} Pickle;

static void put(Pickle *pickle, const void *bytes, size_t size_bytes)
{
    CHECK(pickle->size_bytes + size_bytes <= PICKLE_BYTES, "a pickle of %zu bytes",
          pickle->size_bytes + size_bytes);
    memcpy(pickle->bytes + pickle->size_bytes, bytes, size_bytes);
    pickle->size_bytes += size_bytes;
}

static void put_text(Pickle *pickle, const char *text)
{
    put(pickle, text, strlen(text));
}

static void put_u32(Pickle *pickle, uint32_t value)
{
    unsigned char bytes[4];
    for (int i = 0; i < 4; i++)
        bytes[i] = (unsigned char)(value >> 8 * i & 255);
    put(pickle, bytes, 4);
}

static void put_int(Pickle *pickle, int32_t value)
{
    put_text(pickle, "J"); // BININT
    put_u32(pickle, (uint32_t)value);
}

static void put_string(Pickle *pickle, const char *text)
{
    put_text(pickle, "X"); // BINUNICODE
    put_u32(pickle, (uint32_t)strlen(text));
    put_text(pickle, text);
}

static void put_triple(Pickle *pickle, int32_t a, int32_t b, int32_t c)
{
    put_int(pickle, a);
    put_int(pickle, b);
    put_int(pickle, c);
    put_text(pickle, "\x87"); // TUPLE3
}

// In the order of the stack machine: function, ( ("storage", type, "0", "cpu", count) as a
// persistent id, 0, dims, strides, False, OrderedDict() ), call, end.
static void make_pickle(Pickle *pickle, const int32_t dims[3])
{
    *pickle = (Pickle){.size_bytes = 0};
    put_text(pickle, "\x80\x02"
                     "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_string(pickle, "storage");
    put_text(pickle, "ctorch\nByteStorage\n");
    put_string(pickle, "0");
    put_string(pickle, "cpu");
    put_int(pickle, dims[0] * dims[1] * dims[2]);
    put_text(pickle, "tQ"); // TUPLE, BINPERSID
    put_int(pickle, 0);
    put_triple(pickle, dims[0], dims[1], dims[2]);
    put_triple(pickle, dims[1] * dims[2], dims[2], 1);
    put_text(pickle, "\x89"
                     "ccollections\nOrderedDict\n)RtR."); // NEWFALSE, ..., REDUCE, STOP
}

// ---- the archive -------------------------------------------------------------------------------

static void write_u16(FILE *stream, uint32_t value)
{
    fputc((int)(value & 255), stream);
    fputc((int)(value >> 8 & 255), stream);
}

static void write_u32(FILE *stream, uint32_t value)
{
    write_u16(stream, value & 65535);
    write_u16(stream, value >> 16);
}

// What a local header and an entry of the directory have in common: version, flags, method
// (stored), time, date, CRC-32, sizes, lengths of name and extra field. The date is 1 January 1980.
static void write_common(FILE *stream, const ZipEntry *entry)
{
    write_u16(stream, ZIP_VERSION);
    write_u16(stream, 0);
    write_u16(stream, 0);
    write_u16(stream, 0);
    write_u16(stream, 1 << 5 | 1);
    write_u32(stream, entry->crc32);
    write_u32(stream, entry->size_bytes);
    write_u32(stream, entry->size_bytes);
    write_u16(stream, (uint32_t)strlen(entry->name));
    write_u16(stream, 0);
}

static void write_archive(FILE *stream, ZipEntry entries[N_ENTRIES])
{
    uint32_t offset = 0, directory_bytes = 0;
    for (int i = 0; i < N_ENTRIES; i++) {
        ZipEntry *entry = &entries[i];
        entry->crc32 = (uint32_t)crc32(0, entry->bytes, entry->size_bytes);
        entry->offset = offset;
        fwrite("PK\3\4", 1, 4, stream);
        write_common(stream, entry);
        fputs(entry->name, stream);
        fwrite(entry->bytes, 1, entry->size_bytes, stream);
        offset += 30 + (uint32_t)strlen(entry->name) + entry->size_bytes;
    }
    for (int i = 0; i < N_ENTRIES; i++) {
        fwrite("PK\1\2", 1, 4, stream);
        write_u16(stream, ZIP_VERSION);
        write_common(stream, &entries[i]);
        for (int zero = 0; zero < 5; zero++) // comment, disk, attributes
            write_u16(stream, 0);
        write_u32(stream, entries[i].offset);
        fputs(entries[i].name, stream);
        directory_bytes += 46 + (uint32_t)strlen(entries[i].name);
    }
    fwrite("PK\5\6\0\0\0\0", 1, 8, stream);
    write_u16(stream, N_ENTRIES);
    write_u16(stream, N_ENTRIES);
    write_u32(stream, directory_bytes);
    write_u32(stream, offset);
    write_u16(stream, 0);
}

Status torch_file_write_u8(const char *path, const uint8_t *values, const int32_t dims[3])
{
    Pickle pickle;
    AtomicFile file;
    const int64_t count = (int64_t)dims[0] * dims[1] * dims[2];
    CHECK(count <= INT32_MAX - 4096, "%lld numbers", (long long)count);
    make_pickle(&pickle, dims);
    ZipEntry entries[N_ENTRIES] = {
        {"archive/data.pkl", pickle.bytes, (uint32_t)pickle.size_bytes, 0, 0},
        {"archive/byteorder", "little", 6, 0, 0},
        {"archive/data/0", values, (uint32_t)count, 0, 0},
        {"archive/version", "3\n", 2, 0, 0},
    };
    TRY(file_begin(&file, path));
    write_archive(file.stream, entries);
    return file_commit(&file); // sees the stream's errors
}
