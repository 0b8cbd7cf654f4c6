// Sums of matrix products whose bits do not depend on the order of the parts: each part is rounded
// to multiples of one power of two, the quantum, and doubles add such numbers exactly as long as no
// sum exceeds 2^52 of them.
//
//     const double quantum = exact_quantum(largest_sum);
//     ExactTarget target = {sum, 1.0};
//     exact_add_product(&target, 1, a, b, n_rows, n_columns, T, quantum, false, tiles);
//
// Columns of very different size are first scaled by powers of two (exact_exponent()), so that
// rounding costs each as little.
#ifndef MHA2MLA_MODEL_CONVERT_EXACT_SUM_H
#define MHA2MLA_MODEL_CONVERT_EXACT_SUM_H

#include <stdbool.h>
#include <stdint.h>

// The smallest e with |value| <= 2^(e - 1); 1 for zero.
int exact_exponent(double value);

// For sums whose absolute values stay below `bound`.
double exact_quantum(double bound);

// largest [n]: of each column of values [T, n] the largest absolute value, if it is larger than
// what is there.
void exact_largest(double *largest, const double *values, int T, int n);

// Columns of values [T, n] over the powers of two that their largest values [n] stand for.
void exact_scale(double *values, const double *largest, int T, int n);

// sum [m, n]: of products of such columns, as if they had not been scaled.
void exact_unscale(double *sum, const double *row_largest, const double *column_largest, int m,
                   int n);

typedef struct ExactTarget {
    double *sum;  // [m, n]
    double scale; // of the product, at most 1
} ExactTarget;

// Each target's sum += scale a^T b. Tiles go to OpenMP's threads; each product is one thread's.
void exact_add_product(const ExactTarget *targets, int n_targets,
                       const double *a, // [T, m]
                       const double *b, // [T, n]
                       int m, int n, int T, double quantum,
                       bool upper,     // m == n: only tiles that reach above the diagonal
                       double *tiles); // exact_tile_doubles() for each thread

int64_t exact_tile_doubles(void);

#endif
