// Zip archives as torch.save() makes them, for the tests of their readers.
//
//     unsigned char bytes[TESTING_ZIP_BYTES];
//     const ZipPart parts[] = {{"archive/data.pkl", pickle, pickle_bytes}, ...};
//     size_t size = testing_zip(bytes, parts, 2);
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_ZIP_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_ZIP_H

#include <stddef.h>
#include <stdint.h>

enum { TESTING_ZIP_BYTES = 1 << 16 };

typedef struct ZipPart {
    const char *name;
    const void *bytes;
    size_t size_bytes;
} ZipPart;

// Up to TESTING_ZIP_BYTES; returns how many. 0: they do not fit.
size_t testing_zip(unsigned char out[TESTING_ZIP_BYTES], const ZipPart *parts, int n_parts);

// The pickle of a tensor [a, b, c] in the storage data/0; the bytes are static. `storage` is such
// as "ByteStorage"; numbers of -1 are those that fit the dims.
typedef struct PickleOf {
    const char *storage;
    int32_t dims[3], strides[3], offset, n_stored;
} PickleOf;

size_t testing_pickle(unsigned char out[512], const PickleOf *of);

#endif
