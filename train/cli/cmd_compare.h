// The compare subcommand for other subcommands.
#ifndef MHA2MLA_TRAIN_CLI_CMD_COMPARE_H
#define MHA2MLA_TRAIN_CLI_CMD_COMPARE_H

#include "base/status.h"

// As `mha2mla compare DIR... --out OUT`.
Status cmd_compare_report(char **dirs, int n_dirs, const char *out);

#endif
