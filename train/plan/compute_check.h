// The number format that a command's matrix products run in (model/kernels/compute.h): whether this
// machine can, on all ranks alike, and what it is called.
//
//     TRY(compute_check(comm, config.train.compute, options->emulate, "train.compute"));
//     char text[COMPUTE_TEXT_BYTES];
//     log_info("products %s", compute_describe(text, config.train.compute));
#ifndef MHA2MLA_TRAIN_PLAN_COMPUTE_CHECK_H
#define MHA2MLA_TRAIN_PLAN_COMPUTE_CHECK_H

#include "model/kernels/compute.h"
#include "train/parallel/comm.h"

// `emulate`: products in bfloat16 are emulated on any CPU, from now on. BAD_INPUT where products
// are to be in bfloat16, not emulated, and the CPU of a rank has no instructions for them;
// `setting` is the key or option that asks for them. Warns if the ranks' CPUs have different ones.
// FAILED: no memory. Collective.
Status compute_check(const Comm *comm, ComputeType compute, bool emulate, const char *setting);

enum { COMPUTE_TEXT_BYTES = 64 };

// "in bfloat16 by AMX", "in float32 by the program's own kernels for AVX-512", "in float32 by
// OpenBLAS"; returns `out`.
const char *compute_describe(char out[COMPUTE_TEXT_BYTES], ComputeType compute);

#endif
