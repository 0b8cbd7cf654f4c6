// Which source each sample of a mixture comes from: the fairest order there is for given weights.
//
//     Interleave *order;
//     TRY(interleave_create(&order, weights, n_sources));
//     int source = interleave_at(order, index, &nth);   // the nth sample (from 0) of that source
//     interleave_destroy(order);
//
// A pure function of (weights, index): the answers do not depend on the order of the questions.
// Among the first i samples each source has fewer than one more or one less than its share of i,
// for every i (Tijdeman, "The chairman assignment problem", Discrete Math. 32, 1980: at most
// 1 - 1/(2k-2) for k sources). Shares are rounded to multiples of 2^-40.
//
// Asking forward costs one step per index, asking back starts again at a mark or at 0: ten million
// steps take about half a second. Any thread may ask.
#ifndef MHA2MLA_DATA_INTERLEAVE_H
#define MHA2MLA_DATA_INTERLEAVE_H

#include "base/status.h"

#include <stdint.h>

typedef struct Interleave Interleave;

// Weights [n_sources] in any scale. BAD_INPUT if one is not a positive number or is less than
// 2^-40 of their sum.
Status interleave_create(Interleave **out, const double *weights, int n_sources);

// The source of sample `index` >= 0; *nth is how many samples it had before.
int interleave_at(Interleave *interleave, int64_t index, int64_t *nth);

// How many of the first n_samples >= 0 samples come from `source`.
int64_t interleave_count(Interleave *interleave, int64_t n_samples, int source);

void interleave_destroy(Interleave *interleave); // NULL is allowed

#endif
