#include "model/kernels/compute.h"

#include "base/status.h"
#include "model/kernels/amx.h"
#include "model/kernels/tile.h"

#include <stddef.h>

static int forced = -1; // a Bf16Kernel; -1: none

const char *const compute_names[] = {
    [COMPUTE_FLOAT32] = "float32", [COMPUTE_BFLOAT16] = "bfloat16", NULL};

const char *compute_name(ComputeType type)
{
    CHECK((int)type >= 0 && type < N_COMPUTE_TYPES, "compute type %d", (int)type);
    return compute_names[type];
}

// AMX's kernel rounds its results by AVX512-BF16's instructions.
bool bf16_kernel_is_there(Bf16Kernel kernel)
{
#if defined(__x86_64__)
    const bool has_pairs = __builtin_cpu_supports("avx512bf16") &&
                           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
    const bool has_pairs = false;
#endif
    return kernel == BF16_EMULATED || (has_pairs && (kernel == BF16_AVX512 || amx_is_there()));
}

Bf16Kernel bf16_kernel(void)
{
    if (forced >= 0)
        return (Bf16Kernel)forced;
    Bf16Kernel kernel = N_BF16_KERNELS - 1;
    while (!bf16_kernel_is_there(kernel))
        kernel--;
    return kernel;
}

void bf16_force_kernel(Bf16Kernel kernel)
{
    CHECK(bf16_kernel_is_there(kernel), "kernel %d is not there", (int)kernel);
    forced = (int)kernel;
}

const char *bf16_kernel_name(void)
{
    static const char *const emulated[N_TILE_TARGETS] = {
        [TILE_PLAIN] = "emulated",
        [TILE_AVX2] = "emulated by AVX2",
        [TILE_AVX512] = "emulated by AVX-512",
    };
    switch (bf16_kernel()) {
    case BF16_AMX:
        return "AMX";
    case BF16_AVX512:
        return "AVX512-BF16";
    default:
        return emulated[tile_target()];
    }
}
