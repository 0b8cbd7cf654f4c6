// Command-line options of the subcommands, by their tables (train/cli/command/command.h).
//
//     PackOptions values;
//     CommandLine line;
//     TRY(options_parse(&line, &values, &cmd_pack, argc, argv));
//     ...
//     options_release(&line);
//
// Accepts --name value, --name=value and -l value; "--" ends options. Errors are BAD_INPUT: an
// unknown option with the nearest known one, a missing or malformed value, a number out of bounds,
// too few or too many words.
#ifndef MHA2MLA_TRAIN_CLI_COMMAND_OPTIONS_H
#define MHA2MLA_TRAIN_CLI_COMMAND_OPTIONS_H

#include "train/cli/command/command.h"

// Whether --help or -h stands before "--". argv[0] is the subcommand's name.
bool options_ask_for_help(int argc, char **argv);

// Sets *values to the command's defaults and what argv says, and *out to the words and overrides,
// which are borrowed from argv. FAILED if memory is short.
Status options_parse(CommandLine *out, void *values, const Command *command, int argc, char **argv);

void options_release(CommandLine *line); // a zeroed one is allowed

#endif
