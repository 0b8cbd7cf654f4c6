// Tiles have the same size and each product all T rows, so a part is the same numbers on any number
// of threads.
#include "model/convert/exact_sum.h"

#include "base/intmath.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>

enum { TILE = 128, MANTISSA_BITS = 52 };

int64_t exact_tile_doubles(void)
{
    return TILE * TILE;
}

int exact_exponent(double value)
{
    int exponent = 0;
    if (value != 0)
        frexp(value, &exponent);
    return exponent + 1;
}

double exact_quantum(double bound)
{
    return ldexp(1.0, exact_exponent(bound) - MANTISSA_BITS);
}

void exact_largest(double *largest, const double *values, int T, int n)
{
    for (int64_t i = 0; i < (int64_t)T * n; i++)
        largest[i % n] = fmax(largest[i % n], fabs(values[i]));
}

void exact_scale(double *values, const double *largest, int T, int n)
{
    for (int64_t i = 0; i < (int64_t)T * n; i++)
        values[i] = ldexp(values[i], -exact_exponent(largest[i % n]));
}

void exact_unscale(double *sum, const double *row_largest, const double *column_largest, int m,
                   int n)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            sum[i * n + j] = ldexp(sum[i * n + j], exact_exponent(row_largest[i]) +
                                                       exact_exponent(column_largest[j]));
}

static void add_rounded(const ExactTarget *target, const double *product, int first_row,
                        int first_column, int m, int n, double quantum)
{
    const int n_rows = min_int(TILE, m - first_row), n_columns = min_int(TILE, n - first_column);
    for (int64_t i = 0; i < n_rows; i++) {
        double *to = target->sum + (first_row + i) * n + first_column;
        for (int64_t j = 0; j < n_columns; j++)
            to[j] += nearbyint(target->scale * product[i * TILE + j] / quantum) * quantum;
    }
}

void exact_add_product(const ExactTarget *targets, int n_targets, const double *a, const double *b,
                       int m, int n, int T, double quantum, bool upper, double *tiles)
{
    const int n_down = (m + TILE - 1) / TILE, n_across = (n + TILE - 1) / TILE;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < n_down * n_across; t++) {
        const int row = t / n_across * TILE, column = t % n_across * TILE;
        double *product = tiles + (int64_t)omp_get_thread_num() * TILE * TILE;
        if (upper && column < row)
            continue;
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, min_int(TILE, m - row),
                    min_int(TILE, n - column), T, 1.0, a + row, m, b + column, n, 0.0, product,
                    TILE);
        for (int i = 0; i < n_targets; i++)
            add_rounded(&targets[i], product, row, column, m, n, quantum);
    }
}
