// One value of a config: from a node of the YAML tree into its field and back to text, as its row
// of the table says. `base` is what the key's offset counts from: the Config, or an item of a list.
#ifndef MHA2MLA_TRAIN_CONFIG_CONFIG_VALUE_H
#define MHA2MLA_TRAIN_CONFIG_CONFIG_VALUE_H

#include "train/config/config_table.h"
#include "train/config/config_yaml.h"

enum { REAL_TEXT_BYTES = 40 };

// Sets the field of a scalar key or of a list of texts. What is wrong with the node is added to
// `errors` and leaves the field as it was. FAILED: memory is short.
Status value_set(void *field, int *count, const Key *key, const Node *node, ConfigErrors *errors);

// Whether a scalar says "no value": none, or YAML's null. Quotes make it a text: a run may be named
// 'none'.
bool value_is_none(const Node *node);

// Sets the field to the key's default.
Status value_set_standard(void *field, const Key *key, ConfigErrors *errors);

// Whether the key has a value to write: an optional one that was left out has none, nor has one
// that means nothing beside the values of others.
bool value_is_given(const void *base, const Key *key);

// Writes a scalar as YAML.
void value_write(FILE *out, const void *base, const Key *key);

// Writes a text as YAML, in quotes where a reader could take it for something else.
void value_write_text(FILE *out, const char *text);

// The shortest text that reads back as the same double, a number in YAML 1.1 and 1.2 alike.
void value_format_real(char out[REAL_TEXT_BYTES], double value);

// "high, low, uniform, 2-norm"
void value_format_names(char *out, size_t out_bytes, const char *const *names);

#endif
