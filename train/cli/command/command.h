// A subcommand as data. Each cmd_NAME.c of train/cli defines one: static tables of its options,
// words and examples, and the function that does its work. command_main() parses, checks, prints
// --help, starts MPI and calls that function; help, the manual page and bash completion are made
// from the same tables without running anything.
//
//     typedef struct PackOptions {
//         const char *out;
//         int64_t level;
//     } PackOptions;
//
//     static const PackOptions defaults = {.level = 6};
//
//     static const Option options[] = {
//         {"out", OPTION_TEXT, offsetof(PackOptions, out), "FILE", "file to write",
//          .files = ANY_FILE, .required = true},
//         {"level", OPTION_INT, offsetof(PackOptions, level), "N", "compression level", 1, 9},
//     };
//
//     static Status run(const CommandLine *line)
//     {
//         const PackOptions *given = line->options;
//         return pack(given->out, (int)given->level, line->words, line->n_words);
//     }
//
//     const Command cmd_pack = {
//         .name = "pack",
//         .summary = "pack files",
//         COMMAND_OPTIONS(PackOptions, options, defaults),
//         .words = {"FILE", 1, INT_MAX, ANY_FILE},
//         .examples = (const char *const[]){"mha2mla pack --out a.pack b.txt", NULL},
//         .run = run,
//     };
//
// This folder knows no command but those that print what the tables say: help, the manual page and
// completion. The program's list is in train/cli/commands.h and is passed down.
#ifndef MHA2MLA_TRAIN_CLI_COMMAND_COMMAND_H
#define MHA2MLA_TRAIN_CLI_COMMAND_COMMAND_H

#include "train/parallel/comm.h"

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

typedef enum OptionKind {
    OPTION_TEXT,     // const char *
    OPTION_TEXTS,    // OptionTexts: may be given several times
    OPTION_INT,      // int64_t, min..max
    OPTION_REAL,     // double, min..max
    OPTION_POSITIVE, // double, more than 0, at most max
    OPTION_CHOICE,   // int or an enum: the index in `choices`
    OPTION_FLAG,     // bool, takes no value
} OptionKind;

// The values of an option that may be given several times, in their order.
enum { MAX_OPTION_TEXTS = 16 };
typedef struct OptionTexts {
    const char *items[MAX_OPTION_TEXTS]; // [n]
    int n;
} OptionTexts;

// For Option.files and Words.files: what completion offers. Any other text is a glob of file names.
#define ANY_FILE      "*"
#define ANY_DIRECTORY "/"

typedef struct Option {
    const char *name; // without the dashes
    OptionKind kind;
    size_t offset;        // of the value in the command's options struct
    const char *argument; // how help names the value; NULL for a flag
    const char *help;
    int64_t min, max;           // OPTION_INT, OPTION_REAL, OPTION_POSITIVE
    const char *const *choices; // OPTION_CHOICE: closed by NULL
    const char *derived;        // the default in words, where `defaults` holds none within bounds
    const char *files;          // NULL: the value is not a path
    char letter;                // -n for --max-new; 0: it has none
    bool required;
    bool may_be_empty; // a text of no characters is a value
    bool
        is_query; // asks for information instead of work: words and required options may be missing
} Option;

// The arguments that are not options: between min and max of them, all of one kind.
typedef struct Words {
    const char *name; // how help names one; NULL: the command takes none
    int min, max;     // INT_MAX: any number
    const char *files;
    const char *const *choices; // what a word may be, closed by NULL; NULL: anything
} Words;

typedef struct Command Command;

typedef struct CommandLine {
    const Command *const *commands; // all of the program, closed by NULL, in the order of --help
    const Comm *comm;               // NULL for a command that does not run on ranks
    const void *options;            // the command's own struct
    char **words;                   // [n_words]
    int n_words;
    char **overrides; // [n_overrides]: "--section.key=value", for config_load()
    int n_overrides;
} CommandLine;

struct Command {
    const char *name;
    const char *summary;     // one line, starts with a verb
    const char *description; // a paragraph for --help and the manual; NULL: none
    const Option *options;
    int n_options;
    size_t options_bytes; // of the options struct
    const void *defaults; // an options struct, copied before parsing
    Words words;
    bool is_on_ranks;            // MPI is started before anything can go wrong
    bool takes_overrides;        // --section.key=value
    bool handles_stop;           // SIGTERM, SIGINT and SIGUSR1 stop it between steps (train/stop.h)
    const char *const *examples; // lines that work once ./quickstart.sh has run; closed by NULL
    Status (*run)(const CommandLine *line); // collective if it is on ranks
};

#define COMMAND_OPTIONS(type, table, values)                                                       \
    .options = (table), .n_options = sizeof(table) / sizeof *(table),                              \
    .options_bytes = sizeof(type), .defaults = &(values)

// What every program has: they print what the tables of its commands say.
extern const Command cmd_help;
extern const Command cmd_manual;
extern const Command cmd_completion;

// In all of these, `commands` is as in CommandLine.

// BAD_INPUT: no such command, with the nearest one.
Status command_find(const Command **out, const Command *const *commands, const char *name);

// Runs a command; argv[0] is its name.
Status command_run(const Command *command, const Command *const *commands, int argc, char **argv);

// The program: finds the command that argv[1] names and runs it. The exit status.
int command_main(const Command *const *commands, int argc, char **argv);

#endif
