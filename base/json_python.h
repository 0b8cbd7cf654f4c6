// Numbers of JSON files that only Python writes and reads: NaN, Infinity and -Infinity, and
// integers of any size, such as tokenizer_config.json's model_max_length of 10^30.
//
//     char *relaxed;
//     int64_t size_bytes;
//     TRY(json_python_relax(&relaxed, &size_bytes, map.bytes, map.size_bytes));
//     if (relaxed != NULL)
//         ... JSON, if the rest of it is ...
//     free(relaxed);
#ifndef MHA2MLA_BASE_JSON_PYTHON_H
#define MHA2MLA_BASE_JSON_PYTHON_H

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

// The bytes of the number that begins at `at`, within a text that begins at `start`; 0 if none
// does.
int64_t json_python_number(const char *at, const char *start, const char *end);

// A copy of a text, owned by the caller, in which such integers are reals, and numbers that are
// none or that no double holds are strings: "NaN". A key with one is then refused where a number is
// asked for, and harmless elsewhere. *out = NULL: there are none. FAILED without memory.
Status json_python_relax(char **out, int64_t *size_bytes, const char *text, int64_t text_bytes);

// Removes members "NaN", "Infinity" and "-Infinity" from the object and those in it, before it is
// written: other programs expect numbers there.
void json_python_drop(json_t *object);

#endif
