// --help, made from the tables of train/cli/command.h, and what the manual page shares with it.
#ifndef MHA2MLA_TRAIN_CLI_HELP_H
#define MHA2MLA_TRAIN_CLI_HELP_H

#include "train/cli/command.h"

#include <stdio.h>

void help_print_program(FILE *out);                         // all commands, a line each
void help_print_command(FILE *out, const Command *command); // usage, description, options, examples

// An option's bounds, choices and default: "1 to 9; default 6", "required", or "".
enum { HELP_NOTES_BYTES = 256 };
void help_option_notes(char out[HELP_NOTES_BYTES], const Command *command, const Option *option);

// What an override of the config is called and does.
#define HELP_OVERRIDE      "section.key=value"
#define HELP_OVERRIDE_TEXT "set a key of CONFIG; train --help-config lists all keys"

#endif
