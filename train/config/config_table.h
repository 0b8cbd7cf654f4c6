// The table of all config keys: reading, checking, releasing, writing and the reference are loops
// over it. A key's path is its place in the YAML; "data.sources[].weight" is in each item of a
// list.
#ifndef MHA2MLA_TRAIN_CONFIG_CONFIG_TABLE_H
#define MHA2MLA_TRAIN_CONFIG_CONFIG_TABLE_H

#include "model/shape_fields.h"
#include "train/config/config.h"
#include "train/config/config_values.h"

#include <stddef.h>

typedef enum KeyKind {
    KEY_SECTION, // a mapping that is always there; no field
    KEY_BLOCK,   // a mapping that may be left out; bool
    KEY_ITEMS,   // a list of mappings; pointer to item_bytes each, and int count
    KEY_TEXTS,   // a list of texts; char **, and int count
    KEY_TEXT,    // char *
    KEY_INT,     // int
    KEY_LONG,    // int64_t
    KEY_REAL,    // double
    KEY_SHARE,   // double, written as 0.004 or 0.4%
    KEY_BOOL,    // bool
    KEY_NAME,    // an enum, by `names`
} KeyKind;

typedef struct Key {
    const char *path;
    KeyKind kind;
    size_t offset;            // the field's place in Config, or in the item of a list
    size_t count_offset;      // KEY_ITEMS, KEY_TEXTS
    size_t item_bytes;        // KEY_ITEMS
    size_t only_with;         // offset of an int in Config: where that is 0 the key means nothing
    bool required;            // in its block
    bool is_off;              // the reference shows it commented out
    bool is_path;             // KEY_TEXT, KEY_TEXTS: names files or directories
    const char *standard;     // default as YAML; NULL: required, derived, or optional
    const char *derived;      // in words: what it becomes when left out
    const char *example;      // for the reference, where there is no default; YAML
    const ShapeField *field;  // a field of the model's shape, which has the bounds; or NULL
    double min, max;          // numbers without a field; a field's min may be raised
    const char *const *names; // KEY_NAME: by value of the enum, closed by NULL
    const char *unit;         // or NULL
    KeyEffect effect;         // what another value changes of the run's numbers
    const char *help;
} Key;

// Names of enums by their values, closed by NULL.
extern const char *const config_dtype_names[];
extern const char *const config_rope_names[];
extern const char *const config_distill_names[];

extern const Key config_keys[];
extern const int n_config_keys;

static inline double key_min(const Key *key)
{
    return key->field != NULL && key->field->least > key->min ? key->field->least : key->min;
}

static inline double key_max(const Key *key)
{
    return key->field != NULL ? key->field->most : key->max;
}

// The last word of the key's path if the key lies directly in `block` ("" for the top), else NULL.
const char *key_name_in(const Key *key, const char *block);

// Bounds, unit and default: "0 to 2147483647 steps; default 500", "required". Not for sections.
enum { KEY_NOTES_BYTES = 256 };
void key_describe(char out[KEY_NOTES_BYTES], const Key *key);

// The key `name` of `block`, or NULL.
const Key *key_find(const char *block, const char *name);

// Whether it may be left out, or be none, without getting a default from the table.
static inline bool key_is_optional(const Key *key)
{
    return !key->required && key->standard == NULL && key->kind != KEY_SECTION;
}

#endif
