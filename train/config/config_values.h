// A config as a flat list of keys and values, for comparisons: before and after a resume,
// of two runs, or of the ranks of one run.
//
//     ConfigValues now = {0}, before = {0};
//     TRY(config_values_list(&now, &config));
//     for (int i = 0; i < now.n; i++)
//         printf("%s: %s\n", now.items[i].key, now.items[i].text);    // optim.lr: 1.0e-4
//     config_values_release(&now);
//
// The order is the table's, the same for every config. Equal configs give equal lists and unequal
// ones unequal lists: reals have the digits that read back as the same double. A block or an
// optional key that was left out is not in the list; an item of a list has its index in the key,
// data.sources[0].weight.
#ifndef MHA2MLA_TRAIN_CONFIG_CONFIG_VALUES_H
#define MHA2MLA_TRAIN_CONFIG_CONFIG_VALUES_H

#include "base/status.h"

// What another value of a key changes of the numbers that a run computes. EFFECT_RESULT is the
// default of the table.
typedef enum KeyEffect {
    EFFECT_RESULT,   // the weights, or what is measured about them
    EFFECT_ROUNDING, // only their rounding
    EFFECT_NONE,     // nothing: where files are, how often something is saved or logged
} KeyEffect;

typedef struct ConfigValue {
    char *key;  // "optim.lr", "data.sources[0].shards"; owned
    char *text; // as YAML: "1.0e-4", "[a.h5, b.h5]"; owned
    KeyEffect effect;
    bool is_derived; // follows from other keys where the file leaves it out
    bool is_path;    // names files or a directory, which another machine may have elsewhere
} ConfigValue;

typedef struct ConfigValues {
    ConfigValue *items; // owned [n]
    int n;
} ConfigValues;

struct Config;

// Lists all values of a config. FAILED: memory is short.
Status config_values_list(ConfigValues *out, const struct Config *config);

// The effect of a key as ConfigValue names it; EFFECT_RESULT for a key that is not known.
KeyEffect config_key_effect(const char *key);

void config_values_release(ConfigValues *values);

#endif
