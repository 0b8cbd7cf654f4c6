// A reader of GGUF files by the format's own words, for the tests of what is written; it shares no
// code with model/gguf.
//
//     GgufRead file;
//     testing_gguf_read(&file, path);              // fails the test where the format is not kept
//     const GgufKey *key = testing_gguf_key(&file, "llama.block_count");
//     float *q = testing_gguf_values(&file, "blk.0.attn_q.weight");   // owned by the caller
//     testing_gguf_release(&file);
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_GGUF_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_GGUF_H

#include "tests/support/testing.h"

#include "base/file.h"

enum { GGUF_READ_MAX_KEYS = 64, GGUF_READ_MAX_TENSORS = 64, GGUF_READ_NAME_BYTES = 96 };

typedef struct GgufKey {
    char name[GGUF_READ_NAME_BYTES];
    uint32_t kind;              // the format's; 9: an array
    uint32_t element;           // of an array
    uint64_t count;             // elements of an array, or bytes of a text
    const unsigned char *bytes; // borrowed from the file: of the value, or of the first element
} GgufKey;

typedef struct GgufInfo {
    char name[GGUF_READ_NAME_BYTES];
    uint32_t n_dims, type;
    uint64_t dims[4]; // the first changes fastest
    int64_t count;
    const unsigned char *bytes; // borrowed from the file
} GgufInfo;

typedef struct GgufRead {
    FileMap map; // owned
    int64_t at;  // while it is read
    GgufKey keys[GGUF_READ_MAX_KEYS];
    GgufInfo tensors[GGUF_READ_MAX_TENSORS];
    int n_keys, n_tensors;
} GgufRead;

// Checks magic, version, names, and that tensors lie one after another at multiples of 32 and end
// with the file.
void testing_gguf_read(GgufRead *out, const char *path);
void testing_gguf_release(GgufRead *file);

const GgufKey *testing_gguf_key(const GgufRead *file, const char *name);     // NULL: none
const GgufInfo *testing_gguf_tensor(const GgufRead *file, const char *name); // NULL: none

void testing_gguf_assert_u32(const GgufRead *file, const char *name, uint32_t value);
void testing_gguf_assert_text(const GgufRead *file, const char *name, const char *value);
void testing_gguf_assert_element(const GgufRead *file, const char *name, int index,
                                 const char *text); // of an array of texts

// The numbers of a tensor as floats, from any type; fails the test if there is none.
float *testing_gguf_values(const GgufRead *file, const char *name);

#endif
