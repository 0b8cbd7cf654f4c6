// A subcommand: what main.c dispatches to. Each cmd_NAME.c defines one.
#ifndef MHA2MLA_TRAIN_CLI_COMMAND_H
#define MHA2MLA_TRAIN_CLI_COMMAND_H

#include "base/status.h"

typedef struct Command {
    const char *name;
    const char *summary;                  // one line
    const char *usage;                    // after "mha2mla NAME "
    const char *example;                  // a line that works
    Status (*run)(int argc, char **argv); // argv[0] is the subcommand's name
} Command;

extern const Command cmd_tokenize;
extern const Command cmd_score;
extern const Command cmd_convert;
extern const Command cmd_train;
extern const Command cmd_export;
extern const Command cmd_eval;
extern const Command cmd_inspect;
extern const Command cmd_compare;
extern const Command cmd_plan;
extern const Command cmd_sweep;

#endif
