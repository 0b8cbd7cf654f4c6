#define _GNU_SOURCE
#include "model/kernels/amx.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

// Linux gives a process the state of the tiles when it asks (Documentation/arch/x86/xstate.rst).
static bool ask_for_tiles(void)
{
    enum { ARCH_REQUEST_PERMISSION = 0x1023, XFEATURE_TILE_DATA = 18 };
    unsigned a, b, c, d;
    const unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & amx_bf16) == 0 || (d & amx_tile) == 0)
        return false;
    return syscall(SYS_arch_prctl, ARCH_REQUEST_PERMISSION, XFEATURE_TILE_DATA) == 0;
}

bool amx_is_there(void)
{
    static int answer; // 0: not asked yet; asking twice does no harm
    int known = __atomic_load_n(&answer, __ATOMIC_RELAXED);
    if (known == 0) {
        known = ask_for_tiles() ? 1 : -1;
        __atomic_store_n(&answer, known, __ATOMIC_RELAXED);
    }
    return known > 0;
}

#else

bool amx_is_there(void)
{
    return false;
}

#endif
