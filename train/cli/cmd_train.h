// The train subcommand for other subcommands: one run of a config, from its newest checkpoint if it
// has one; a finished run is left as it is.
//
//     TRY(cmd_train_run(comm, "runs/sweep-demo/demo-dkv8.yaml"));
#ifndef MHA2MLA_TRAIN_CLI_CMD_TRAIN_H
#define MHA2MLA_TRAIN_CLI_CMD_TRAIN_H

#include "train/parallel/comm.h"

// As `mha2mla train PATH`, after stop_install(); STOPPED if a signal or the time limit ended it.
// Collective.
Status cmd_train_run(const Comm *comm, const char *path);

#endif
