// The one list of the subcommands: a new one needs its line here and in commands.h.
#include "train/cli/commands.h"

const Command *const commands[] = {
    &cmd_tokenize, &cmd_score,  &cmd_convert,    &cmd_distill, &cmd_plan,     &cmd_train,
    &cmd_sweep,    &cmd_export, &cmd_import,     &cmd_eval,    &cmd_generate, &cmd_compare,
    &cmd_inspect,  &cmd_help,   &cmd_completion, &cmd_manual,  NULL,
};
