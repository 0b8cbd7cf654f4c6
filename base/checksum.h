// Checksums: SHA-256 as 64 lower-case hexadecimal digits (libcrypto), CRC-32 (zlib).
#ifndef MHA2MLA_BASE_CHECKSUM_H
#define MHA2MLA_BASE_CHECKSUM_H

#include "base/status.h"

#include <stdint.h>

enum { SHA256_HEX_BYTES = 65 }; // with the closing zero

Status checksum_sha256_bytes(char out[SHA256_HEX_BYTES], const void *bytes, int64_t size_bytes);
Status checksum_sha256_file(char out[SHA256_HEX_BYTES], const char *path);

// Reads the file in small pieces: as many pages as it has need not fit in memory. BAD_INPUT if it
// is missing, FAILED if the system does not let it be read.
Status checksum_crc32_file(uint32_t *crc32, int64_t *size_bytes, const char *path);

#endif
