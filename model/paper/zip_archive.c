// APPNOTE.TXT of PKWARE, 4.3: local headers and data of the entries, the central directory, and its
// end, by which a reader begins. torch.save() also writes the records of zip64, which say the same
// as long as nothing is large, and are not read here.
#include "model/paper/zip_archive.h"

#include <string.h>
#include <zlib.h>

enum {
    END_BYTES = 22,
    ENTRY_BYTES = 46, // of the directory
    LOCAL_BYTES = 30,
    MOST_COMMENT = 65535,
    FLAG_ENCRYPTED = 1,
    NAME_SHOWN = 80,
};

static uint32_t u16_at(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8;
}

static uint32_t u32_at(const unsigned char *bytes)
{
    return u16_at(bytes) | u16_at(bytes + 2) << 16;
}

// ---- checking the directory --------------------------------------------------------------------

// The end of the directory, behind which there may be a comment; NULL: there is none.
static const unsigned char *find_end(const unsigned char *bytes, int64_t size_bytes)
{
    for (int64_t comment = 0; comment <= MOST_COMMENT; comment++) {
        const int64_t at = size_bytes - END_BYTES - comment;
        if (at < 0)
            return NULL;
        if (memcmp(bytes + at, "PK\5\6", 4) == 0 && u16_at(bytes + at + 20) == comment)
            return bytes + at;
    }
    return NULL;
}

// What is left of the directory from `offset` on holds a whole entry.
static bool is_whole(const ZipArchive *archive, int64_t offset)
{
    const int64_t left = archive->directory_bytes - offset;
    const unsigned char *entry = archive->directory + offset;
    return left >= ENTRY_BYTES && memcmp(entry, "PK\1\2", 4) == 0 &&
           left >=
               ENTRY_BYTES + (int64_t)u16_at(entry + 28) + u16_at(entry + 30) + u16_at(entry + 32);
}

static Status fail_entry(const ZipArchive *archive, const unsigned char *entry, const char *what)
{
    const uint32_t name_bytes = u16_at(entry + 28);
    char name[NAME_SHOWN + 1] = "";
    for (uint32_t i = 0; i < name_bytes && i < NAME_SHOWN; i++)
        name[i] = entry[ENTRY_BYTES + i] > ' ' && entry[ENTRY_BYTES + i] < 0x7f
                      ? (char)entry[ENTRY_BYTES + i]
                      : '?';
    return fail(BAD_INPUT, "%s: entry '%s' of the zip archive %s", archive->path, name, what);
}

// One entry of the directory against its own header. *end is where the entry before it ends, and
// becomes where this one does.
static Status check_entry(const ZipArchive *archive, const unsigned char *entry, int64_t *end)
{
    const uint32_t name_bytes = u16_at(entry + 28);
    const int64_t size_bytes = u32_at(entry + 24), start = u32_at(entry + 42);
    if (u16_at(entry + 10) != 0 || u32_at(entry + 20) != size_bytes)
        return fail_entry(archive, entry, "is compressed; torch.save() does not compress");
    if ((u16_at(entry + 8) & FLAG_ENCRYPTED) != 0 || u16_at(entry + 34) != 0)
        return fail_entry(archive, entry, "is encrypted or in another volume");
    if (start < *end)
        return fail_entry(archive, entry, "overlaps the one before it");
    if (start + LOCAL_BYTES + name_bytes > archive->directory_start)
        return fail_entry(archive, entry, "is not in the file, which is damaged");
    const unsigned char *local = archive->bytes + start;
    if (memcmp(local, "PK\3\4", 4) != 0 || u16_at(local + 26) != name_bytes ||
        memcmp(local + LOCAL_BYTES, entry + ENTRY_BYTES, name_bytes) != 0)
        return fail_entry(archive, entry, "is not where its directory says; the file is damaged");
    *end = start + LOCAL_BYTES + name_bytes + u16_at(local + 28) + size_bytes;
    return *end <= archive->directory_start
               ? OK
               : fail_entry(archive, entry, "reaches beyond the others; the file is damaged");
}

Status zip_archive_open(ZipArchive *out, const unsigned char *bytes, int64_t size_bytes,
                        const char *path)
{
    const unsigned char *end = find_end(bytes, size_bytes);
    if (end == NULL)
        return fail(BAD_INPUT, "%s: not a whole zip archive, as torch.save() makes them", path);
    ZipArchive archive = {.bytes = bytes,
                          .path = path,
                          .n_entries = (int)u16_at(end + 10),
                          .directory_bytes = u32_at(end + 12),
                          .directory_start = u32_at(end + 16)};
    if (archive.n_entries == UINT16_MAX || archive.directory_start == UINT32_MAX ||
        u16_at(end + 4) != 0 || u16_at(end + 8) != u16_at(end + 10))
        return fail(BAD_INPUT, "%s: a zip archive of zip64 or of several volumes; not supported",
                    path);
    if (archive.directory_start + archive.directory_bytes > end - bytes)
        return fail(BAD_INPUT, "%s: the zip archive's directory is not in the file; it is damaged",
                    path);
    archive.directory = bytes + archive.directory_start;
    int64_t offset = 0, entry_end = 0;
    ZipEntry entry;
    for (int i = 0; i < archive.n_entries; i++) {
        if (!is_whole(&archive, offset))
            return fail(BAD_INPUT, "%s: the zip archive's directory is damaged at entry %d", path,
                        i);
        TRY(check_entry(&archive, archive.directory + offset, &entry_end));
        zip_archive_next(&entry, &archive, &offset);
    }
    archive.directory_bytes = offset;
    *out = archive;
    return OK;
}

// ---- finding entries ---------------------------------------------------------------------------

bool zip_archive_next(ZipEntry *out, const ZipArchive *archive, int64_t *offset)
{
    const unsigned char *entry = archive->directory + *offset;
    if (*offset >= archive->directory_bytes)
        return false;
    const unsigned char *local = archive->bytes + u32_at(entry + 42);
    const uint32_t name_bytes = u16_at(entry + 28);
    *out = (ZipEntry){.name = (const char *)entry + ENTRY_BYTES,
                      .name_bytes = (int)name_bytes,
                      .bytes = local + LOCAL_BYTES + name_bytes + u16_at(local + 28),
                      .size_bytes = u32_at(entry + 24),
                      .crc32 = u32_at(entry + 16)};
    *offset += ENTRY_BYTES + (int64_t)name_bytes + u16_at(entry + 30) + u16_at(entry + 32);
    return true;
}

Status zip_archive_find(ZipEntry *out, const ZipArchive *archive, const char *name)
{
    const int name_bytes = (int)strlen(name);
    int64_t offset = 0;
    int n_found = 0;
    for (ZipEntry entry; zip_archive_next(&entry, archive, &offset);) {
        if (entry.name_bytes != name_bytes || memcmp(entry.name, name, (size_t)name_bytes) != 0)
            continue;
        n_found++;
        *out = entry;
    }
    if (n_found != 1)
        return fail(BAD_INPUT, "%s: the zip archive has %d entries '%s', expected is one",
                    archive->path, n_found, name);
    if (crc32_z(0, out->bytes, (z_size_t)out->size_bytes) != out->crc32)
        return fail(BAD_INPUT, "%s: entry '%s' of the zip archive is damaged: CRC-32",
                    archive->path, name);
    return OK;
}
