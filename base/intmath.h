// Integer arithmetic that C leaves out.
//
//     int n_blocks = ceil_div(n_tokens, BLOCK);
#ifndef MHA2MLA_BASE_INTMATH_H
#define MHA2MLA_BASE_INTMATH_H

#include <stdint.h>

static inline int min_int(int a, int b)
{
    return a < b ? a : b;
}

static inline int max_int(int a, int b)
{
    return a > b ? a : b;
}

static inline int64_t min_int64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t max_int64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

// a / b rounded up; a >= 0, b > 0.
static inline int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

static inline int round_up(int a, int multiple)
{
    return ceil_div(a, multiple) * multiple;
}

#endif
