// Everything that is wrong with a config, collected before it is reported (see
// train/config/config.h).
#ifndef MHA2MLA_TRAIN_CONFIG_CONFIG_ERRORS_H
#define MHA2MLA_TRAIN_CONFIG_CONFIG_ERRORS_H

#include "base/status.h"

enum {
    LINE_OVERRIDE = 0, // given on the command line
    LINE_NONE = -1,    // the file as a whole
    MAX_ERRORS = 50,   // kept; the rest is only counted
};

typedef struct ConfigError {
    int line;      // from 1, or one of the above
    char path[96]; // key, e.g. "optim.lr"
    char text[768];
} ConfigError;

typedef struct ConfigErrors {
    const char *file; // borrowed
    int n;            // found; may be more than kept
    ConfigError kept[MAX_ERRORS];
} ConfigErrors;

void errors_add(ConfigErrors *errors, int line, const char *path, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

// Whether an error was found at this key or at one it lies in.
bool errors_has(const ConfigErrors *errors, const char *path);

// Whether an error was found at this block, in it, or around it.
bool errors_within(const ConfigErrors *errors, const char *block);

// OK without errors. BAD_INPUT otherwise: a single error becomes the text of fail(); several are
// printed in the file's order.
Status errors_report(ConfigErrors *errors);

#endif
