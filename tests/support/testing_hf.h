// Small models as Hugging Face directories, for the tests of what is read from them.
//
//     char dir[PATH_BYTES];
//     testing_hf_save(dir, &testing_hf_shape);
//     json_t *config = testing_hf_read_config(dir); // changed, and
//     testing_hf_write_config(config, dir);
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_HF_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_HF_H

#include "tests/support/testing.h"

#include "base/file.h"
#include "base/json.h"
#include "model/hf/hf.h"

extern const ModelShape testing_hf_shape; // grouped queries, tied head

// The same, converted to 2 RoPE pairs and d_kv 6.
ModelShape testing_hf_mla(SvdKind svd);

// Random weights, and RoPE pairs that differ between the heads of a converted model.
void testing_hf_random(Model *out, const ModelShape *shape);

// The name of a new directory below one that is removed at exit; it is not made.
void testing_hf_new_dir(char out[PATH_BYTES]);

// A random model of the shape, in float32, in a new directory.
void testing_hf_save(char dir[PATH_BYTES], const ModelShape *shape);

// config.json of a directory; the first is owned by the caller.
json_t *testing_hf_read_config(const char *dir);
void testing_hf_write_config(const json_t *config, const char *dir);

void testing_hf_assert_same(const ModelShape *a, const ModelShape *b);

#endif
