// Zip archives whose entries are stored as they are, in a file or memory that is mapped: what
// torch.save() writes. Every header is checked before use.
//
//     ZipArchive archive;
//     ZipEntry entry;
//     TRY(zip_archive_open(&archive, map.bytes, map.size_bytes, path));
//     TRY(zip_archive_find(&entry, &archive, "archive/data.pkl"));
//     ... entry.bytes [entry.size_bytes] ...
//
// BAD_INPUT names the file and the entry: a directory or entry outside of the file, entries that
// overlap, are compressed, encrypted or in several volumes, another checksum. Archives beyond the
// limits of the format without zip64 are refused, and so are entries that are not in the order of
// their directory, which no writer of such files makes.
#ifndef MHA2MLA_MODEL_PAPER_ZIP_ARCHIVE_H
#define MHA2MLA_MODEL_PAPER_ZIP_ARCHIVE_H

#include "base/status.h"

#include <stdint.h>

typedef struct ZipArchive {
    const unsigned char *bytes;     // borrowed: the whole file
    const unsigned char *directory; // in it
    const char *path;               // borrowed: for error texts
    int64_t directory_start;        // entries lie before it
    int64_t directory_bytes;
    int n_entries;
} ZipArchive;

typedef struct ZipEntry {
    const char *name; // in the archive, name_bytes without a closing zero
    int name_bytes;
    const unsigned char *bytes; // in the archive
    int64_t size_bytes;
    uint32_t crc32;
} ZipEntry;

Status zip_archive_open(ZipArchive *out, const unsigned char *bytes, int64_t size_bytes,
                        const char *path);

// The entries in their order: *offset is 0 before the first. False after the last.
bool zip_archive_next(ZipEntry *out, const ZipArchive *archive, int64_t *offset);

// The entry of that name, its checksum compared; BAD_INPUT if there is none, or two.
Status zip_archive_find(ZipEntry *out, const ZipArchive *archive, const char *name);

#endif
