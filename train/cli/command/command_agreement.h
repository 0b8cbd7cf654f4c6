// The command lines of a job's ranks, compared before any of them begins to work
// (train/parallel/contract.h). Launchers start every rank with the same; a job of several programs,
// mpirun -n 1 A : -n 1 B, need not.
#ifndef MHA2MLA_TRAIN_CLI_COMMAND_COMMAND_AGREEMENT_H
#define MHA2MLA_TRAIN_CLI_COMMAND_COMMAND_AGREEMENT_H

#include "train/cli/command/command.h"

// Every option's value, or, of an option or word that is a path, only that it is given: the command
// itself compares what lies there. Overrides of config keys are part of the config. `own` is how
// this rank's was parsed. BAD_INPUT on all ranks with the first difference. Collective.
Status command_agree(const Comm *comm, const Command *command, const CommandLine *line, Status own);

#endif
