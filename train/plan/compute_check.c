// Emulated products round as those of the CPU do, but they take several times as long as float32:
// nobody wants them unasked.
#include "train/plan/compute_check.h"

#include "model/kernels/gemm.h"
#include "train/parallel/contract.h"

#include <stdio.h>

static Status check_own(ComputeType compute, bool emulate, const char *setting)
{
    if (compute != COMPUTE_BFLOAT16 || emulate || bf16_kernel() != BF16_EMULATED)
        return OK;
    return fail(BAD_INPUT,
                "%s is bfloat16, but this CPU has neither AVX512-BF16 nor AMX-BF16 (avx512_bf16, "
                "amx_bf16 in /proc/cpuinfo); take float32 here, or give --emulate for the same "
                "results to rounding, slowly",
                setting);
}

// Ranks with different kernels train correctly, but only the same placement of ranks repeats such a
// run bit by bit.
static Status compare_kernels(const Comm *comm)
{
    Contract contract = {0};
    contract_add(&contract, "the processor's kernel for bfloat16", "%s", bf16_kernel_name());
    return contract_warn(&contract, comm,
                         "their sums round differently, so that the results depend on which rank "
                         "runs where");
}

// The ranks have the same config and options, so all of them return early or none.
Status compute_check(const Comm *comm, ComputeType compute, bool emulate, const char *setting)
{
    if (emulate)
        bf16_force_kernel(BF16_EMULATED);
    if (compute != COMPUTE_BFLOAT16)
        return OK;
    TRY(comm_agree(comm, check_own(compute, emulate, setting)));
    return compare_kernels(comm);
}

const char *compute_describe(char out[COMPUTE_TEXT_BYTES], ComputeType compute)
{
    const char *own = gemm_kernel_name();
    if (compute == COMPUTE_BFLOAT16)
        snprintf(out, COMPUTE_TEXT_BYTES, "in bfloat16 %s%s",
                 bf16_kernel() == BF16_EMULATED ? "" : "by ", bf16_kernel_name());
    else if (own != NULL)
        snprintf(out, COMPUTE_TEXT_BYTES, "in float32 by the program's own kernels for %s", own);
    else
        snprintf(out, COMPUTE_TEXT_BYTES, "in float32 by OpenBLAS");
    return out;
}
