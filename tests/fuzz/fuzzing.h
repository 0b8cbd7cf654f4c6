// What the fuzz targets share. A target, fuzz_<module>.c, is one function that hands an input to a
// reader of ours and checks with CHECK() what must hold whatever the input says. libFuzzer calls it
// (tests/fuzz/fuzz.sh), or tests/fuzz/fuzz_replay.c with the files of tests/fuzz/<module>/ as a
// unit test.
//
//     int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
//     {
//         SafeTensors file;
//         Status status = safetensors_open(&file, fuzz_file("model.safetensors", data, size));
//         if (status != OK)
//             return fuzz_check_refusal(status);
//         ...
//     }
//
// Files are in one directory under TMPDIR, which is gone at exit; tests/fuzz/fuzz.sh puts it in
// memory.
#ifndef MHA2MLA_TESTS_FUZZ_FUZZING_H
#define MHA2MLA_TESTS_FUZZ_FUZZING_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

// Returns 0.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// The directory of all files of fuzz_file(); made at the first call.
const char *fuzz_dir(void);

// A new file of that name with these bytes; the path (static storage) until the next call.
const char *fuzz_file(const char *name, const void *data, size_t size);

// Aborts unless an error is the input's fault and told in one line; returns 0.
int fuzz_check_refusal(Status status);

// An input whose first bytes are settings of the target.
typedef struct FuzzInput {
    const uint8_t *bytes; // borrowed; what is left
    size_t size;
} FuzzInput;

// Takes the next byte off the input; 0 behind its end.
uint8_t fuzz_take_byte(FuzzInput *input);

#endif
