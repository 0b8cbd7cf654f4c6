// The median of measured values: outliers, such as steps on a busy machine, do not move it.
//
//     seconds = median_take(pieces, n_pieces);
#ifndef MHA2MLA_BASE_MEDIAN_H
#define MHA2MLA_BASE_MEDIAN_H

#include <stdint.h>

// Sorts values [n], none of them NaN, and returns their median: of an even number the mean of the
// two in the middle. n > 0.
double median_take(double *values, int64_t n);

#endif
