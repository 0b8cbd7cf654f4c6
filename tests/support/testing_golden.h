// Golden files of whole models (tests/golden): tokens, and what transformers or PyTorch compute
// from them.
//
//     Golden golden;
//     golden_open(&golden, "models/gqa_tied");
//     Model model = golden_load_model("gqa_tied");
//     golden_close(&golden);
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_GOLDEN_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_GOLDEN_H

#include "model/convert/rope_select.h"
#include "model/hf/safetensors.h"
#include "model/model.h"

enum { GOLDEN_B = 2, GOLDEN_T = 19, GOLDEN_TOKENS = GOLDEN_B * GOLDEN_T };

typedef struct Golden {
    const char *name; // borrowed
    SafeTensors file; // owned
    int32_t inputs[GOLDEN_TOKENS], targets[GOLDEN_TOKENS];
    // Of a conversion's file.
    RopeStrategy strategy;
    SvdKind svd;
    int rope_pairs, d_kv;
} Golden;

// The models of tests/golden/models that have their original attention, closed by NULL, and of
// these the last ones: one for each architecture besides plain Llama.
extern const char *const golden_models[];
extern const char *const *const golden_architectures;

// Opens "NAME.safetensors" below tests/golden: models/... or mla/...
void golden_open(Golden *out, const char *name);
void golden_close(Golden *golden);

// The model in tests/golden/models/NAME. The caller releases it.
Model golden_load_model(const char *name);

#endif
