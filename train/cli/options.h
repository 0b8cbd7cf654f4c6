// Command-line options of the subcommands, from a table: parsing, checking, --help.
//
//     const char *out = NULL;
//     int64_t eos = -1;
//     const Option options[] = {
//         {"out", OPTION_STRING, &out, "SHARD.h5", "file to write", .required = true},
//         {"eos", OPTION_INT, &eos, "ID", "token after each document", .least = 0, .most =
//         INT32_MAX},
//     };
//     Arguments rest;
//     TRY(options_parse(&rest, &cmd_tokenize, options, 2, argc, argv));
//     if (rest.help_shown)
//         return OK;
//
// Accepts --name value and --name=value; "--" ends options. Errors are BAD_INPUT: an unknown option
// with the nearest known one, a missing or malformed value, a number out of bounds.
#ifndef MHA2MLA_TRAIN_CLI_OPTIONS_H
#define MHA2MLA_TRAIN_CLI_OPTIONS_H

#include "train/cli/command.h"

#include <stdint.h>

typedef enum OptionKind {
    OPTION_STRING, // const char **
    OPTION_INT,    // int64_t *, least..most
    OPTION_REAL,   // double *, more than `least`, at most `most`
    OPTION_FLAG,   // bool *, takes no value
} OptionKind;

typedef struct Option {
    const char *name; // without the dashes
    OptionKind kind;
    void *value;          // set only if the option is given
    const char *argument; // how --help names the value
    const char *help;
    int64_t least, most; // OPTION_INT, OPTION_REAL
    bool required;
} Option;

typedef struct Arguments {
    bool help_shown; // --help was given and printed: nothing else to do
    char **words;    // borrowed from argv: what is not an option, in order
    int n_words;
} Arguments;

Status options_parse(Arguments *out, const Command *command, const Option *options, int n_options,
                     int argc, char **argv);

#endif
