#include "base/checksum.h"

#include "base/file.h"

#include <openssl/evp.h>

Status checksum_sha256_bytes(char out[SHA256_HEX_BYTES], const void *bytes, int64_t size_bytes)
{
    unsigned char digest[32];
    unsigned int length = 0;
    if (EVP_Digest(bytes, (size_t)size_bytes, digest, &length, EVP_sha256(), NULL) != 1)
        return fail(FAILED, "libcrypto computes no SHA-256 here");
    CHECK(length == sizeof digest, "SHA-256 of %u bytes", length);
    for (unsigned i = 0; i < length; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
    return OK;
}

Status checksum_sha256_file(char out[SHA256_HEX_BYTES], const char *path)
{
    FileMap map;
    TRY(file_map(&map, path));
    Status status = checksum_sha256_bytes(out, map.bytes, map.size_bytes);
    file_unmap(&map);
    return status;
}
