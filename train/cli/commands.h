// The subcommands of mha2mla. Each cmd_NAME.c of this folder defines one; those that print the
// tables are in train/cli/command/.
//
//     int main(int argc, char **argv)
//     {
//         return command_main(commands, argc, argv);
//     }
#ifndef MHA2MLA_TRAIN_CLI_COMMANDS_H
#define MHA2MLA_TRAIN_CLI_COMMANDS_H

#include "train/cli/command/command.h"

extern const Command cmd_tokenize;
extern const Command cmd_score;
extern const Command cmd_convert;
extern const Command cmd_distill;
extern const Command cmd_train;
extern const Command cmd_export;
extern const Command cmd_import;
extern const Command cmd_eval;
extern const Command cmd_generate;
extern const Command cmd_inspect;
extern const Command cmd_compare;
extern const Command cmd_plan;
extern const Command cmd_sweep;

extern const Command *const commands[]; // all of them, in the order of --help, closed by NULL

#endif
