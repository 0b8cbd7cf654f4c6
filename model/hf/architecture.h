// The architectures whose models are read, one row for each: how config.json names it, which fields
// of the shape its models have, and what its keys mean where they are not Llama's.
//
//     const Architecture *architecture;
//     TRY(architecture_find(&architecture, config, path));
//     TRY(architecture_read(&shape, architecture, config, path));
//
// docs/architectures.md says how a row is added.
#ifndef MHA2MLA_MODEL_HF_ARCHITECTURE_H
#define MHA2MLA_MODEL_HF_ARCHITECTURE_H

#include "base/json.h"
#include "model/shape_fields.h"

typedef struct FieldValue {
    ShapeFieldId field;
    double value; // not 0, which ends a list
} FieldValue;

enum { ARCHITECTURE_VALUES = 5, ARCHITECTURE_KEYS = 5 };

typedef struct Architecture {
    const char *type;                         // "model_type"
    const char *name;                         // of "architectures"
    const char *older_name;                   // another one that files have, or NULL
    FieldValue fixed[ARCHITECTURE_VALUES];    // of all its models, whatever config.json says
    FieldValue standard[ARCHITECTURE_VALUES]; // of absent keys, where LlamaConfig has another value
    const char *reads[ARCHITECTURE_KEYS];     // keys that LlamaForCausalLM does not read
} Architecture;

// Models from random weights, and models with latent attention.
extern const Architecture *const architecture_plain, *const architecture_mla;

// The row that "model_type" and "architectures" name; BAD_INPUT names what there is. Borrowed.
Status architecture_find(const Architecture **out, const json_t *config, const char *where);

// True for a key that this architecture reads and others ignore or do not have. A converted model's
// row reads all of them: its block "mha2mla" says what they make.
bool architecture_reads(const Architecture *architecture, const char *key);

// Removes from a converted model's config.json the keys that its base's architecture reads and
// Llama does not: transformers' caches, for one, follow a sliding_window in any model.
void architecture_drop_keys(json_t *config);

// What an absent key of the field, not one that is null, stands for; 0: nothing.
double architecture_standard(const Architecture *architecture, const ShapeField *field);

// Sets the fields that belong to the architecture (SHAPE_OF_ARCHITECTURE). BAD_INPUT with key and
// value.
Status architecture_read(ModelShape *shape, const Architecture *architecture, const json_t *config,
                         const char *where);

#endif
