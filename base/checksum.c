// Two checksums for two purposes: SHA-256 identifies a file against another (tokenizers), where a
// collision must not be made on purpose; CRC-32 finds damage at the speed of the disk.
#include "base/checksum.h"

#include "base/file.h"
#include "base/progress.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

Status checksum_sha256_bytes(char out[SHA256_HEX_BYTES], const void *bytes, int64_t size_bytes)
{
    unsigned char digest[32];
    unsigned int length = 0;
    // The EVP interface, since OpenSSL 3 has deprecated SHA256(). It can fail: a build or a FIPS
    // provider may lack the algorithm.
    if (EVP_Digest(bytes, (size_t)size_bytes, digest, &length, EVP_sha256(), NULL) != 1)
        return fail(FAILED, "libcrypto computes no SHA-256 here");
    CHECK(length == sizeof digest, "SHA-256 of %u bytes", length);
    for (unsigned i = 0; i < length; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
    return OK;
}

// Mapped as a whole: only tokenizers are hashed this way, a few MB each.
Status checksum_sha256_file(char out[SHA256_HEX_BYTES], const char *path)
{
    FileMap map;
    TRY(file_map(&map, path));
    Status status = checksum_sha256_bytes(out, map.bytes, map.size_bytes);
    file_unmap(&map);
    return status;
}

Status checksum_crc32_file(uint32_t *out, int64_t *size_bytes, const char *path)
{
    enum { PIECE_BYTES = 1 << 18 }; // fits in the second-level cache
    FILE *file;
    TRY(file_open_stream(&file, path));
    Status status = OK;
    uLong sum = crc32_z(0, NULL, 0);
    int64_t total = 0;
    size_t n = 0;
    unsigned char *piece = malloc(PIECE_BYTES);
    if (piece == NULL) {
        status = fail(FAILED, "%s: no memory to read it", path);
        goto close_file;
    }
    // Shards of a checkpoint are GBs; the heartbeat keeps the watchdog from taking the read for a
    // hang.
    while ((n = fread(piece, 1, PIECE_BYTES, file)) > 0) {
        progress_beat();
        sum = crc32_z(sum, piece, n);
        total += (int64_t)n;
    }
    if (ferror(file)) {
        status = fail(FAILED, "%s: read failed: %s", path, strerror(errno));
        goto free_piece;
    }
    *out = (uint32_t)sum;
    *size_bytes = total;
free_piece:
    free(piece);
close_file:
    fclose(file);
    return status;
}
