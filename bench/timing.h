// What all benchmarks do with the clock.
//
//     const double start_s = timing_seconds(CLOCK_PROCESS_CPUTIME_ID);
//     ... work ...
//     seconds[round] = timing_seconds(CLOCK_PROCESS_CPUTIME_ID) - start_s;
//     printf("%.3f s\n", timing_median(seconds, n_rounds));
#ifndef MHA2MLA_BENCH_TIMING_H
#define MHA2MLA_BENCH_TIMING_H

#include <stdlib.h>
#include <time.h>

static inline double timing_seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline int timing_compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Sorts the values, ascending.
static inline double timing_median(double *values, // [count]
                                   int count)
{
    qsort(values, (size_t)count, sizeof *values, timing_compare);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

#endif
