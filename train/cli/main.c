// mha2mla: converts Llama-family models to multi-head latent attention and heals them. This file
// finds the subcommand; a reader of the main job goes on in train/cli/cmd_train.c.
#include "base/hdf5_error.h"
#include "base/log.h"
#include "base/suggest.h"
#include "train/cli/command.h"
#include "train/cli/options.h"

#include <stdio.h>
#include <string.h>

static const Command *const commands[] = {
    &cmd_tokenize, &cmd_score,  &cmd_convert, &cmd_plan,    &cmd_train,
    &cmd_sweep,    &cmd_export, &cmd_eval,    &cmd_compare, &cmd_inspect,
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(void)
{
    printf("usage: mha2mla COMMAND [ARGUMENTS]\n\n"
           "Converts Llama-family models to multi-head latent attention and heals them.\n\n");
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
    printf("\nmha2mla COMMAND --help says more.\n");
}

static Status find_command(const Command **out, const char *name)
{
    const char *names[N_COMMANDS];
    for (int i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i]->name;
        if (strcmp(name, names[i]) == 0) {
            *out = commands[i];
            return OK;
        }
    }
    const char *near = suggest_nearest(name, names, N_COMMANDS);
    return fail(BAD_INPUT, "unknown command '%s'%s%s%s; see mha2mla --help", name,
                near != NULL ? ", did you mean '" : "", near != NULL ? near : "",
                near != NULL ? "'?" : "");
}

static Status run(int argc, char **argv)
{
    if (argc < 2)
        return fail(BAD_INPUT, "no command is given; see mha2mla --help");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help();
        return OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("mha2mla %s\n", MHA2MLA_VERSION);
        return OK;
    }
    const Command *command;
    TRY(find_command(&command, argv[1]));
    return command->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    hdf5_silence(); // our own texts carry HDF5's reason
    Status status = run(argc, argv);
    // Ranks of MPI have said it already, in comm_stop(); STOPPED is no error.
    if (status != OK && status != STOPPED)
        log_failure();
    // An earlier flush may have failed: then this one has nothing left to write.
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == OK) {
        log_error("standard output cannot be written: the disk is full, or nobody reads it");
        status = FAILED;
    }
    return (int)status;
}
