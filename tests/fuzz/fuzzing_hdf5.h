// Damaged HDF5 files, for targets whose reader goes through HDF5. An input edits a small whole file
// (tests/fuzz/base): four bytes per edit. Either any byte can be edited, or those that say
// something to the reader - attributes, lengths, and what lies behind the headers: the index of the
// chunks, the chunks - after which the checksums are made right again, which chance would not do,
// so that the damage gets past them. Other parts of HDF5's headers with right checksums make
// HDF5 1.10 itself read through null pointers.
//
//     static Hdf5Base base;
//     hdf5_base_load(&base, path);                       // once
//     hdf5_base_add_chunk(&base, "tokens");
//     hdf5_base_add_attribute(&base, "version");
//     hdf5_base_add_length(&base, "tokens");
//     hdf5_base_add_rest(&base);
//     ...
//     size_t n_bytes = hdf5_base_edit(file, &base, settings, &input);
//     check(fuzz_file("shard.h5", file, n_bytes));
#ifndef MHA2MLA_TESTS_FUZZ_FUZZING_HDF5_H
#define MHA2MLA_TESTS_FUZZ_FUZZING_HDF5_H

#include "tests/fuzz/fuzzing.h"

enum { HDF5_MOST_BYTES = 1 << 14, HDF5_MOST_BLOCKS = 16 };

// Bits of the settings: which checksums are made right after the edits.
enum { HDF5_MEND_HEADERS = 2, HDF5_MEND_CHUNKS = 4 };

// Bytes [start, end), of a header or chunk followed by their checksum.
typedef struct Hdf5Block {
    size_t start, end;
} Hdf5Block;

typedef struct Hdf5Base {
    const char *path; // borrowed
    uint8_t bytes[HDF5_MOST_BYTES];
    size_t size;
    Hdf5Block headers[HDF5_MOST_BLOCKS]; // of HDF5
    Hdf5Block chunks[HDF5_MOST_BLOCKS];  // with the Fletcher32 filter last
    Hdf5Block fields[HDF5_MOST_BLOCKS];  // what may be edited where headers are mended
    int n_headers, n_chunks, n_fields;
} Hdf5Base;

void hdf5_base_load(Hdf5Base *base, const char *path);

// The only chunk of a dataset.
void hdf5_base_add_chunk(Hdf5Base *base, const char *dataset);

// The value of an attribute, as a field.
void hdf5_base_add_attribute(Hdf5Base *base, const char *name);

// The dims of a dataset, as a field.
void hdf5_base_add_dims(Hdf5Base *base, const char *dataset);

// All that lies behind the last header, as a field; the last to be added.
void hdf5_base_add_rest(Hdf5Base *base);

// Copies the base to `file`, edits it with the rest of the input, and makes checksums right as the
// settings say. Returns the size.
size_t hdf5_base_edit(uint8_t file[HDF5_MOST_BYTES], const Hdf5Base *base, uint8_t settings,
                      FuzzInput *input);

#endif
