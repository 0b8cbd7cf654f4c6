// --help, made from the tables of train/cli/command/command.h, and what the manual page shares with
// it.
#ifndef MHA2MLA_TRAIN_CLI_COMMAND_HELP_H
#define MHA2MLA_TRAIN_CLI_COMMAND_HELP_H

#include "train/cli/command/command.h"

#include <stdio.h>

// All commands, a line each; `commands` is closed by NULL.
void help_print_program(FILE *out, const Command *const *commands);

// Usage, description, options, examples.
void help_print_command(FILE *out, const Command *command);

// An option's bounds, choices and default: "1 to 9; default 6", "required", or "".
enum { HELP_NOTES_BYTES = 256 };
void help_option_notes(char out[HELP_NOTES_BYTES], const Command *command, const Option *option);

// What an override of the config is called and does.
#define HELP_OVERRIDE      "section.key=value"
#define HELP_OVERRIDE_TEXT "set a key of CONFIG; train --help-config lists all keys"

#endif
