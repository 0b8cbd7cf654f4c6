#include "tests/support/testing_compress.h"

#include "tests/support/testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

void testing_append_gzip(const char *path, const void *bytes, size_t size)
{
    gzFile file = gzopen(path, "ab");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, bytes, (unsigned)size), size);
    assert_int_equal(gzclose(file), Z_OK);
}

void testing_append_zstd(const char *path, const void *bytes, size_t size)
{
    const size_t capacity = ZSTD_compressBound(size);
    void *frame = malloc(capacity);
    ZSTD_CCtx *compressor = ZSTD_createCCtx();
    FILE *file = fopen(path, "ab");
    assert_true(frame != NULL && compressor != NULL && file != NULL);
    assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(compressor, ZSTD_c_checksumFlag, 1)));
    const size_t n = ZSTD_compress2(compressor, frame, capacity, bytes, size);
    assert_false(ZSTD_isError(n));
    assert_int_equal(fwrite(frame, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    ZSTD_freeCCtx(compressor);
    free(frame);
}
