// One key of the config that a sweep varies, with its values: what --vary and --d-kv say.
//
//     SweepAxis axis;
//     TRY(sweep_axis_parse(&axis, "model.convert.rope=high,low"));
//     axis.items[1].override     // "--model.convert.rope=low", for config_load()
//     axis.items[1].name         // "rope-low", its part of the run's name
//     sweep_axis_release(&axis);
//
// Values are YAML, as in overrides. A comma in quotes or brackets is part of the value. Whether a
// key is known and a value allowed is found out by config_load().
#ifndef MHA2MLA_TRAIN_SWEEP_SWEEP_AXIS_H
#define MHA2MLA_TRAIN_SWEEP_SWEEP_AXIS_H

#include "base/status.h"

typedef struct SweepValue {
    char *override; // owned
    char *name;     // owned; of letters, digits and . _ + - alone
} SweepValue;

typedef struct SweepAxis {
    char *key;         // owned: "model.convert.rope"
    const char *word;  // borrowed from it: "rope", or "dkv", in names
    SweepValue *items; // owned [n], no two alike
    int n;
} SweepAxis;

// "KEY=VALUE,VALUE,...". BAD_INPUT: no values, an empty one, one given twice, a quote or bracket
// that is not closed, a key that a sweep cannot vary.
Status sweep_axis_parse(SweepAxis *out, const char *text);

// "16,8,4" for model.convert.d_kv.
Status sweep_axis_parse_d_kvs(SweepAxis *out, const char *list);

// Whether `key` is `block` or lies in it.
bool sweep_axis_is_in(const SweepAxis *axis, const char *block);

void sweep_axis_release(SweepAxis *axis); // a zeroed one is allowed

#endif
