// JSON on jansson: loading with a named place for every error, and typed lookups with bounds.
//
//     json_t *root;
//     TRY(json_read(&root, "model/config.json"));
//     status = json_get_int(&layers, root, "model/config.json", "num_hidden_layers", 1, 10000);
//     json_decref(root);
#ifndef MHA2MLA_BASE_JSON_H
#define MHA2MLA_BASE_JSON_H

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

// Parses a file, also where Python wrote numbers that JSON has not (base/json_python.h); the caller
// owns *out. BAD_INPUT names line and column.
Status json_read(json_t **out, const char *path);

// Parses bytes; `where` names them in errors.
Status json_parse(json_t **out, const char *bytes, int64_t size_bytes, const char *where);

// Parses line `number`, from 1, of a .jsonl file.
Status json_parse_line(json_t **out, const char *bytes, int64_t size_bytes, const char *path,
                       int number);

// Writes a file atomically, indented by two, keys in insertion order. Reals get 10 digits, for
// people.
Status json_write(const json_t *root, const char *path);

// The same with as many more digits, up to 17, as bring every real back as it is: for values that a
// program reads again.
Status json_write_exact(const json_t *root, const char *path);

// Required members of an object; BAD_INPUT if missing, of another type or out of bounds.
Status json_get_int(int64_t *out, const json_t *object, const char *where, const char *key,
                    int64_t min, int64_t max);
Status json_get_real(double *out, const json_t *object, const char *where, const char *key,
                     double min, double max);
Status json_get_string(const char **out, const json_t *object, const char *where, const char *key);
// The same of a text that is one line and can be shown on a terminal: no control characters.
Status json_get_line(const char **out, const json_t *object, const char *where, const char *key);
Status json_get_bool(bool *out, const json_t *object, const char *where, const char *key);
// The same where the member may be missing or null: then *out = otherwise.
Status json_get_bool_or(bool *out, const json_t *object, const char *where, const char *key,
                        bool otherwise);

// A value as its file has it, cut to fit a line of an error; NULL gives "". Returns `out`.
enum { JSON_TEXT_BYTES = 120 };
const char *json_describe(char out[JSON_TEXT_BYTES], const json_t *value);

// True if the member is there and not null.
bool json_has(const json_t *object, const char *key);

#endif
