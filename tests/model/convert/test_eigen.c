// model/eigen: the vectors solve A v = lambda v for LAPACK's largest eigenvalues, are orthonormal,
// and are all there, whatever the size does to bands, panels and groups.
#include "tests/support/testing.h"

#include "model/convert/eigen.h"
#include "model/kernels/tile.h"

#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *room(int64_t count, size_t size_bytes)
{
    void *block = calloc((size_t)count, size_bytes);
    assert_non_null(block);
    return block;
}

// vectors [n, tile_padded(k)] and values [k] of a copy of `matrix`.
static void solve(float *vectors, double *values, const float *matrix, int n, int k)
{
    EigenRoom eigen;
    float *copy = room((int64_t)n * n, sizeof *copy);
    for (int i = 0; i < n; i++) // the other triangle is not read
        for (int j = 0; j < n; j++)
            copy[i * n + j] = j >= i ? matrix[i * n + j] : NAN;
    Arena arena = arena_start("test");
    eigen_place(&eigen, &arena, n, k);
    assert_ok(arena_allocate(&arena));
    eigen_place(&eigen, &arena, n, k);
    assert_ok(eigen_largest(vectors, copy, n, k, &eigen));
    memcpy(values, eigen.values, (size_t)k * sizeof *values);
    arena_release(&arena);
    free(copy);
}

static double *lapack_values(const float *matrix, int n)
{
    double *values = room(n, sizeof *values), *copy = room((int64_t)n * n, sizeof *copy);
    for (int i = 0; i < n * n; i++)
        copy[i] = matrix[i];
    assert_int_equal(LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'N', 'L', n, copy, n, values), 0);
    free(copy);
    return values;
}

static double column_dot(const float *vectors, int n, int ld, int a, int b)
{
    double dot = 0;
    for (int i = 0; i < n; i++)
        dot += (double)vectors[i * ld + a] * (double)vectors[i * ld + b];
    return dot;
}

// |A v - lambda v| of a column.
static double residual(const float *matrix, const float *vectors, int n, int ld, int column,
                       double value)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double product = 0;
        for (int j = 0; j < n; j++)
            product += (double)matrix[i * n + j] * (double)vectors[j * ld + column];
        product -= value * (double)vectors[i * ld + column];
        sum += product * product;
    }
    return sqrt(sum);
}

// most: of all errors, relative to the norm.
static void assert_solved(const float *matrix, int n, int k, double most)
{
    const int ld = tile_padded(k);
    float *vectors = room((int64_t)n * ld, sizeof *vectors);
    double *values = room(k, sizeof *values), *expected = lapack_values(matrix, n);
    double norm = fmax(fabs(expected[0]), fabs(expected[n - 1]));
    solve(vectors, values, matrix, n, k);
    for (int c = 0; c < k; c++) {
        double value = expected[n - k + c];
        if (!(fabs(values[c] - value) < most * norm))
            fail_msg("%d of %d: value %d is %g, expected %g", k, n, c, values[c], value);
        double error = residual(matrix, vectors, n, ld, c, value);
        if (!(error < most * norm))
            fail_msg("%d of %d: residual %d is %g", k, n, c, error / norm);
        for (int b = 0; b <= c; b++) {
            double dot = column_dot(vectors, n, ld, b, c);
            if (!(fabs(dot - (b == c)) < most))
                fail_msg("%d of %d: vectors %d, %d have dot %g", k, n, b, c, dot);
        }
    }
    free(vectors);
    free(values);
    free(expected);
}

static float *random_symmetric(int n, double scale)
{
    float *matrix = room((int64_t)n * n, sizeof *matrix);
    testing_fill(matrix, (int64_t)n * n, scale, 21);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            matrix[i * n + j] = matrix[j * n + i];
    return matrix;
}

// Sizes around multiples of the band's and the groups' widths.
static void test_vectors_solve_their_equation(void **state)
{
    (void)state;
    static const int sizes[][2] = {{256, 40}, {257, 1},  {287, 33},
                                   {289, 64}, {319, 65}, {321, 321}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        float *matrix = random_symmetric(sizes[i][0], 1.0);
        assert_solved(matrix, sizes[i][0], sizes[i][1], 4e-6); // seen 1.2e-6
        free(matrix);
    }
}

static void test_scale_does_not_matter(void **state)
{
    (void)state;
    float *matrix = random_symmetric(300, 1e-15);
    assert_solved(matrix, 300, 30, 4e-6); // seen 1.1e-6
    free(matrix);
    matrix = random_symmetric(300, 1e15);
    assert_solved(matrix, 300, 30, 4e-6); // seen 1.1e-6
    free(matrix);
}

static void test_equal_eigenvalues_have_orthonormal_vectors(void **state)
{
    (void)state;
    const int n = 300;
    float *matrix = room((int64_t)n * n, sizeof *matrix);
    for (int i = 0; i < n; i++)
        matrix[i * n + i] = 1;
    assert_solved(matrix, n, 100, 1e-9); // seen 0
    for (int i = 0; i < n; i++)          // 1 1^T: one eigenvalue n, the others 0
        for (int j = 0; j < n; j++)
            matrix[i * n + j] = 1;
    assert_solved(matrix, n, 20, 4e-5); // seen 1.1e-5: sums of equal numbers all round alike
    memset(matrix, 0, (size_t)n * (size_t)n * sizeof *matrix);
    matrix[7 * n + 7] = -2;
    matrix[290 * n + 290] = 3;
    matrix[290 * n + 100] = matrix[100 * n + 290] = 1e-3f;
    assert_solved(matrix, n, 5, 1e-7); // seen 8e-9
    free(matrix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_solve_their_equation),
        cmocka_unit_test(test_scale_does_not_matter),
        cmocka_unit_test(test_equal_eigenvalues_have_orthonormal_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
