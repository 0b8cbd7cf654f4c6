// Options of commands that run matrix products: their number format, and whether bfloat16 is
// emulated. Those that read a config have the format there and take the second alone.
//
//     typedef struct AskOptions { ComputeOptions compute; ... } AskOptions;
//     static const Option options[] = {COMPUTE_OPTIONS(AskOptions, compute), ...};
//     TRY(compute_check(comm, given->compute.type, given->compute.emulate, "--compute"));
#ifndef MHA2MLA_TRAIN_CLI_COMPUTE_OPTIONS_H
#define MHA2MLA_TRAIN_CLI_COMPUTE_OPTIONS_H

#include "model/kernels/compute.h"
#include "train/cli/command/command.h"

typedef struct ComputeOptions {
    ComputeType type;
    bool emulate;
} ComputeOptions;

// clang-format off
#define EMULATE_OPTION(type_, member_)                                                             \
    {"emulate", OPTION_FLAG, offsetof(type_, member_), NULL,                                       \
     "emulate products in bfloat16, slowly, on any CPU"}

#define COMPUTE_OPTIONS(type_, member_)                                                            \
    {"compute", OPTION_CHOICE, offsetof(type_, member_.type), "TYPE",                              \
     "number format of the operands of matrix products", .choices = compute_names},                \
    EMULATE_OPTION(type_, member_.emulate)
// clang-format on

#endif
