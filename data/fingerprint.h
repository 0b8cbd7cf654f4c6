// Compares what a run's data was with what it is now, field by field.
//
//     TRY(fingerprint_check(current, saved, "runs/x/checkpoints/step-00000500"));
//
// Any two JSON values: `current` decides which fields count, in its order; `saved` may be any
// value, since it comes from a file that may have been edited.
#ifndef MHA2MLA_DATA_FINGERPRINT_H
#define MHA2MLA_DATA_FINGERPRINT_H

#include "base/status.h"

#include <jansson.h>

// BAD_INPUT naming the first field that differs and both its values. Numbers may differ by a
// rounding of 1e-9, since they may have been written with fewer digits than a double has.
Status fingerprint_check(json_t *current, const json_t *saved, const char *where);

#endif
