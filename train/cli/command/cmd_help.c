// mha2mla help: the text of --help.
#include "train/cli/command/help.h"

static Status run(const CommandLine *line)
{
    const Command *command;
    if (line->n_words == 0) {
        help_print_program(stdout, line->commands);
        return OK;
    }
    TRY(command_find(&command, line->commands, line->words[0]));
    help_print_command(stdout, command);
    return OK;
}

const Command cmd_help = {
    .name = "help",
    .summary = "show the commands, or the options of one",
    .words = {"COMMAND", 0, 1},
    .examples = (const char *const[]){"mha2mla help train", NULL},
    .run = run,
};
