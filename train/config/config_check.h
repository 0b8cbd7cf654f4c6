// What one key's bounds cannot say: keys that depend on each other (see train/config/config.h).
#ifndef MHA2MLA_TRAIN_CONFIG_CONFIG_CHECK_H
#define MHA2MLA_TRAIN_CONFIG_CONFIG_CHECK_H

#include "train/config/config.h"
#include "train/config/config_errors.h"
#include "train/config/config_yaml.h"

enum { DECAY_START_NOT_GIVEN = -1, STEPS_NOT_GIVEN = -1 };

// Fills defaults that follow from other keys, then adds what does not fit together to `errors`.
// Keys that have an error already are not looked at again.
void config_check(Config *config, const Tree *tree, ConfigErrors *errors);

#endif
