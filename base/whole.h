// Small sums with dims, which every cutting into blocks needs.
#ifndef MHA2MLA_BASE_WHOLE_H
#define MHA2MLA_BASE_WHOLE_H

#include <stdint.h>

static inline int whole_min(int a, int b)
{
    return a < b ? a : b;
}

static inline int64_t whole_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

// a / b rounded up; a >= 0, b > 0.
static inline int whole_divide_up(int a, int b)
{
    return (a + b - 1) / b;
}

static inline int whole_round_up(int a, int multiple)
{
    return whole_divide_up(a, multiple) * multiple;
}

#endif
