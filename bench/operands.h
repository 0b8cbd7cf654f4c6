// Operands of benchmarks: memory that ends the program where there is none, and random numbers.
//
//     float *values = operands_random(n);
#ifndef MHA2MLA_BENCH_OPERANDS_H
#define MHA2MLA_BENCH_OPERANDS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

// A cache line more than asked for: loops of whole vectors may read behind the end.
static inline void *operands_allocate(int64_t bytes)
{
    void *memory = aligned_alloc(64, (size_t)((bytes + 127) / 64 * 64));
    if (memory == NULL) {
        fprintf(stderr, "no memory for %lld bytes\n", (long long)bytes);
        exit(1);
    }
    return memory;
}

// Uniform in (-1, 1), the same in every run.
static inline float *operands_random(int64_t count)
{
    float *values = operands_allocate(count * (int64_t)sizeof *values);
    uint64_t state = 88172645463325252u;
    for (int64_t i = 0; i < count; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        values[i] = (float)(int32_t)(state >> 32) * 0x1p-31f;
    }
    return values;
}

#endif
