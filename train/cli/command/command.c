// Finds the subcommand, parses its command line and runs it, on one process or on all ranks. On
// ranks the command line is parsed after MPI has started, so that a mistake in it is reported once.
#include "train/cli/command/command.h"

#include "base/log.h"
#include "base/suggest.h"
#include "train/cli/command/command_agreement.h"
#include "train/cli/command/help.h"
#include "train/cli/command/options.h"
#include "train/stop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COMMANDS = 32 };

// Room for the options struct of any command, aligned for all types that it may hold.
typedef union OptionValues {
    char bytes[512];
    max_align_t alignment;
} OptionValues;

typedef struct Arguments {
    const Command *command;
    const Command *const *commands; // as in CommandLine
    int argc;                       // argv[0] is the command's name
    char **argv;
} Arguments;

// A name that is off by a letter or two gets a suggestion, not a list.
Status command_find(const Command **out, const Command *const *commands, const char *name)
{
    const char *names[MAX_COMMANDS];
    int n = 0;
    for (; commands[n] != NULL; n++) {
        CHECK(n < MAX_COMMANDS, "more than %d commands", MAX_COMMANDS);
        names[n] = commands[n]->name;
        if (strcmp(name, names[n]) == 0) {
            *out = commands[n];
            return OK;
        }
    }
    const char *nearest = suggest_nearest(name, names, n);
    if (nearest != NULL)
        return fail(BAD_INPUT, "unknown command '%.200s'; did you mean '%s'?", name, nearest);
    return fail(BAD_INPUT, "unknown command '%.200s'; see mha2mla --help", name);
}

// On ranks, each has parsed its own copy of the command line; whether they are the same is compared
// before the command runs, together with the errors of parsing.
static Status parse_and_run(const Comm *comm, void *context)
{
    const Arguments *arguments = context;
    const Command *command = arguments->command;
    OptionValues values;
    CommandLine line = {0};
    CHECK(command->options_bytes <= sizeof values, "%s: %zu bytes of options", command->name,
          command->options_bytes);
    Status status = options_parse(&line, &values, command, arguments->argc, arguments->argv);
    if (comm != NULL)
        status = command_agree(comm, command, &line, status);
    TRY_GOTO(release, status);
    line.comm = comm;
    line.commands = arguments->commands;
    status = command->run(&line);
release:
    options_release(&line);
    return status;
}

// Help needs no MPI, whose start takes half a second and may not work on a login node. Launchers
// say in the environment which rank a process will be.
static bool is_first_process(void)
{
    static const char *const variables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                            "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *rank = getenv(variables[i]);
        if (rank != NULL)
            return strcmp(rank, "0") == 0;
    }
    return true;
}

Status command_run(const Command *command, const Command *const *commands, int argc, char **argv)
{
    Arguments arguments = {command, commands, argc, argv};
    if (options_ask_for_help(argc, argv)) {
        if (is_first_process())
            help_print_command(stdout, command);
        return OK;
    }
    // Before MPI starts and until the process is gone, so that a signal never ends one rank alone.
    if (command->handles_stop)
        stop_install();
    if (!command->is_on_ranks)
        return parse_and_run(NULL, &arguments);
    char program[64];
    snprintf(program, sizeof program, "mha2mla %s %s", MHA2MLA_VERSION, command->name);
    return comm_run(program, parse_and_run, &arguments);
}

static Status run(const Command *const *commands, int argc, char **argv)
{
    if (argc < 2)
        return fail(BAD_INPUT, "no command is given; see mha2mla --help");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help_print_program(stdout, commands);
        return OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("mha2mla %s\n", MHA2MLA_VERSION);
        return OK;
    }
    if (argv[1][0] == '-')
        return fail(BAD_INPUT, "%.200s stands before the command; see mha2mla --help", argv[1]);
    const Command *command;
    TRY(command_find(&command, commands, argv[1]));
    return command_run(command, commands, argc - 1, argv + 1);
}

// Everything a command prints to stdout has to be on its way before the exit status says so: a full
// disk or a closed pipe shows only at the flush.
int command_main(const Command *const *commands, int argc, char **argv)
{
    Status status = run(commands, argc, argv);
    // Commands on ranks have reported it in comm_stop(), and a second report prints nothing.
    // STOPPED is not an error.
    if (status != OK && status != STOPPED)
        log_failure();
    // An earlier flush may have failed: then this one has nothing left to write.
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == OK) {
        log_error("standard output cannot be written: the disk is full, or nobody reads it");
        status = FAILED;
    }
    return (int)status;
}
