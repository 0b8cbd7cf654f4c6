// The files that `mha2mla eval` writes: none of them may be one that it reads, or another of them.
#ifndef MHA2MLA_TRAIN_CLI_EVAL_FILES_H
#define MHA2MLA_TRAIN_CLI_EVAL_FILES_H

#include "train/cli/eval_kinds.h"

// BAD_INPUT names the option and the file. `model` is the model's directory. --predictions is read
// before it is written, and refused there if it is anything else.
Status eval_check_files(const EvalOptions *given, const char *model);

#endif
