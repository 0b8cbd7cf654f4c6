// bench_interleave [MILLIONS]: what it costs to find the source of a sample, as a resumed run does
// for all samples before it: a walk over so many million samples (default 10) of five sources.
//
//     build/release/bench/bench_interleave
//
// Prints one line: seconds of processor time and nanoseconds per sample. Seen: 0.12 s for ten
// million.
#include "data/interleave.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    const int millions = argc > 1 ? atoi(argv[1]) : 10;
    const double weights[] = {0.70, 0.15, 0.08, 0.06, 0.01};
    Interleave *order;
    if (argc > 2 || millions < 1) {
        fprintf(stderr, "usage: bench_interleave [MILLIONS]\n");
        return BAD_INPUT;
    }
    if (interleave_create(&order, weights, 5) != OK) {
        fprintf(stderr, "bench_interleave: %s\n", fail_text());
        return FAILED;
    }
    const int64_t n_samples = (int64_t)millions * 1000000;
    int64_t nth;
    const clock_t start = clock();
    interleave_at(order, n_samples, &nth);
    const double elapsed_s = (double)(clock() - start) / CLOCKS_PER_SEC;
    interleave_destroy(order);
    printf("%d million samples: %.2f s, %.0f ns per sample\n", millions, elapsed_s,
           1e9 * elapsed_s / (double)n_samples);
    return OK;
}
