// HOT marks a leaf function with a hot loop: the compiler makes a version for AVX-512, one for AVX2
// and one for any x86-64, and the loader picks the best the machine has, so that one binary serves
// every node. Leaf functions only: an OpenMP region's body is outlined and would not be cloned.
//
// The loader runs the choice between versions before a sanitizer has set up its shadow memory, so
// builds with one have the default version alone; so have clang 14, which lacks target_clones, and
// other architectures.
#ifndef MHA2MLA_BASE_SIMD_H
#define MHA2MLA_BASE_SIMD_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define HOT __attribute__((noinline, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define HOT __attribute__((noinline))
#endif

// Has memory fetched into cache before it is read. It may lie beyond an object's end.
static inline void prefetch_bytes(const void *from, int size_bytes)
{
    enum { CACHE_LINE_BYTES = 64 };
    for (int i = 0; i < size_bytes; i += CACHE_LINE_BYTES)
        __builtin_prefetch((const char *)from + i);
}

#endif
