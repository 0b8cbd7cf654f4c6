// By the bits of the exponent, in blocks: a block without a branch vectorizes, and only one with a
// bad number is searched for its place.
#include "model/kernels/finite.h"

#include "base/simd.h"

#include <stdbool.h>
#include <string.h>

enum { BLOCK = 1 << 14 }; // floats

// Compared as integers, so that loops vectorize: the exponent's eight bits are all ones exactly for
// infinities and NaNs (IEEE 754).
static bool is_finite(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7f800000u) != 0x7f800000u;
}

HOT static bool all_finite(const float *values, int64_t count)
{
    uint32_t bad = 0;
#pragma omp simd reduction(| : bad)
    for (int64_t i = 0; i < count; i++)
        bad |= !is_finite(values[i]);
    return bad == 0;
}

int64_t finite_find_nonfinite(const float *values, int64_t count)
{
    int64_t first_bad = count;
#pragma omp parallel for schedule(static) reduction(min : first_bad) if (count > 4 * BLOCK)
    for (int64_t first = 0; first < count; first += BLOCK) {
        int64_t end = count - first < BLOCK ? count : first + BLOCK;
        if (all_finite(values + first, end - first))
            continue;
        int64_t bad = first;
        while (is_finite(values[bad]))
            bad++;
        first_bad = bad < first_bad ? bad : first_bad;
    }
    return first_bad;
}
