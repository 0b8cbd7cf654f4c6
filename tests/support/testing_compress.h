// Compressed files for tests of their readers.
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_COMPRESS_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_COMPRESS_H

#include <stddef.h>

// Appends a gzip member with `bytes` [size] to the file, which is made if there is none.
void testing_append_gzip(const char *path, const void *bytes, size_t size);

// Appends a zstd frame that carries a checksum likewise.
void testing_append_zstd(const char *path, const void *bytes, size_t size);

#endif
