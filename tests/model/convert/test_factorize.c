// Factors of small matrices against LAPACK's full SVD, of large ones against the singular values
// and vectors they were made of: those that single precision is enough for, those that it is not,
// and what happens where its eigen-solver goes wrong.
#include "tests/support/testing.h"

#include "tests/reference/ref.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// What goes wrong in ssyevr.
typedef enum EigenFault {
    NO_FAULT,
    NOT_CONVERGED,  // LAPACK says so
    PAIR_MISSING,   // fewer eigenpairs than asked for
    VECTOR_TWICE,   // vectors that are not independent
    WRONG_VECTOR,   // a vector that is none, the right one missing
    VECTORS_ASTRAY, // all vectors off by 1e-3
    VECTORS_NAN,
    N_EIGEN_FAULTS
} EigenFault;

static EigenFault eigen_fault;

static lapack_int ssyevr_with_fault(int layout, char job, char range, char uplo, lapack_int n,
                                    float *a, lapack_int lda, float vl, float vu, lapack_int il,
                                    lapack_int iu, float abstol, lapack_int *m, float *w, float *z,
                                    lapack_int ldz, lapack_int *support, float *work,
                                    lapack_int n_work, lapack_int *iwork, lapack_int n_iwork)
{
    const lapack_int info =
        LAPACKE_ssyevr_work(layout, job, range, uplo, n, a, lda, vl, vu, il, iu, abstol, m, w, z,
                            ldz, support, work, n_work, iwork, n_iwork);
    if (n_work == -1 || eigen_fault == NO_FAULT)
        return info;
    float *last = z + (int64_t)(*m - 1) * ldz; // vector of the largest eigenvalue
    if (eigen_fault == NOT_CONVERGED)
        return 1;
    if (eigen_fault == PAIR_MISSING)
        *m -= 1;
    else if (eigen_fault == VECTOR_TWICE)
        memcpy(last, last - ldz, (size_t)n * sizeof *last);
    else if (eigen_fault == WRONG_VECTOR)
        for (lapack_int i = 0; i < n; i++)
            last[i] = i == 0;
    else if (eigen_fault == VECTORS_ASTRAY)
        for (int64_t i = 0; i < (int64_t)*m * ldz; i++)
            z[i] += 1e-3f * (float)(i % 7 - 3) / 60; // norm 1e-3 for 800 rows
    else
        *last = NAN;
    return info;
}

#define LAPACKE_ssyevr_work ssyevr_with_fault
#include "model/convert/factorize.c"

static void *allocate(int64_t count, size_t size_bytes)
{
    void *block = calloc((size_t)count, size_bytes);
    assert_non_null(block);
    return block;
}

static double sum_squares(const float *a, int64_t count, int64_t stride)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)a[i * stride] * (double)a[i * stride];
    return sum;
}

// Singular values of A [m, n], descending.
static void singular_values(double *sigma, const float *a, int m, int n)
{
    double *copy = allocate((int64_t)m * n, sizeof *copy), unused;
    for (int i = 0; i < m * n; i++)
        copy[i] = a[i];
    // By columns A is A^T: the same singular values.
    assert_int_equal(
        LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'N', n, m, copy, n, sigma, &unused, 1, &unused, 1), 0);
    free(copy);
}

enum { MOST = 64 };
static float product[MOST * MOST], up[MOST * MOST], down[MOST * MOST];

// The error of the rank-R factors in the Frobenius norm is the tail of the singular values (Eckart
// and Young), and every component's weight is shared evenly between the factors.
static void assert_best_factors(const float *a, int m, int n, int R)
{
    double sigma[MOST], tail = 0;
    singular_values(sigma, a, m, n);
    for (int r = R; r < m && r < n; r++)
        tail += sigma[r] * sigma[r];
    assert_ok(factorize(up, down, a, m, n, R));
    ref_multiply(product, up, down, m, n, R);
    for (int i = 0; i < m * n; i++)
        product[i] -= a[i];
    double error = sqrt(sum_squares(product, m * n, 1));
    assert_true(fabs(error - sqrt(tail)) < 3e-7 * sigma[0]); // seen 1.1e-7, float's rounding
    for (int r = 0; r < R; r++) {
        assert_true(fabs(sum_squares(up + r, m, R) - sigma[r]) < 2e-7 * sigma[0]); // seen 5.6e-8
        assert_true(fabs(sum_squares(down + r * n, n, 1) - sigma[r]) < 2e-7 * sigma[0]);
    }
}

static void test_factors_are_the_nearest_of_their_rank(void **state)
{
    (void)state;
    float a[60 * 24];
    testing_fill(a, 60 * 24, 0.02, 1);
    static const int ranks[] = {1, 10, 24};
    for (int i = 0; i < 3; i++) {
        assert_best_factors(a, 60, 24, ranks[i]);
        assert_best_factors(a, 24, 60, ranks[i]);
    }
    assert_best_factors(a, 32, 32, 7);
    assert_best_factors(a, 1, 60, 1);
    assert_best_factors(a, 60, 1, 1);
}

static void test_factors_of_any_scale_are_as_exact(void **state)
{
    (void)state;
    float a[40 * 20];
    testing_fill(a, 40 * 20, 1e-30, 2);
    assert_best_factors(a, 40, 20, 8);
    testing_fill(a, 40 * 20, 1e30, 2);
    assert_best_factors(a, 20, 40, 8);
}

// A [m, n] of rank 5 and singular values that fall by `ratio` from one to the next.
static void fill_rank_5(float *a, int m, int n, double ratio)
{
    float left[MOST * 5], right[5 * MOST];
    testing_fill(left, m * 5, 1.0, 3);
    testing_fill(right, n * 5, 1.0, 4);
    for (int r = 1; r < 5; r++)
        for (int i = 0; i < m; i++)
            left[i * 5 + r] *= (float)pow(ratio, r);
    ref_multiply(a, left, right, m, n, 5);
}

static void test_rank_deficient_matrix_keeps_its_product(void **state)
{
    (void)state;
    float a[40 * 24];
    static const double ratios[] = {1.0, 1e-2, 1e-3};
    for (int i = 0; i < 3; i++) {
        fill_rank_5(a, 40, 24, ratios[i]);
        assert_best_factors(a, 40, 24, 12);
        assert_best_factors(a, 40, 24, 24);
        fill_rank_5(a, 24, 40, ratios[i]);
        assert_best_factors(a, 24, 40, 12);
    }
}

static void test_zero_matrix_has_zero_factors(void **state)
{
    (void)state;
    static const float a[12 * 8], zeros[12 * 8];
    assert_ok(factorize(up, down, a, 12, 8, 8));
    assert_memory_equal(up, zeros, 12 * 8 * sizeof *up);
    assert_memory_equal(down, zeros, 8 * 8 * sizeof *down);
}

static void test_matrix_that_is_not_finite_is_refused(void **state)
{
    (void)state;
    float a[12 * 8];
    testing_fill(a, 12 * 8, 1.0, 5);
    a[5 * 8 + 3] = NAN;
    assert_fails(BAD_INPUT, "value at row 5, column 3 is nan", factorize(up, down, a, 12, 8, 4));
    a[5 * 8 + 3] = -INFINITY;
    assert_fails(BAD_INPUT, "value at row 5, column 3 is -inf", factorize(up, down, a, 12, 8, 4));
}

// ---- matrices that single precision is enough for, and those that it is not ---------------------

enum { LONG = 900, SHORT = 800, RANK = 64 };

// Which one factorize() ends with. EITHER: it depends on the rounding of the BLAS.
typedef enum Precision { SINGLE, DOUBLE, EITHER } Precision;

// n columns of m random numbers, orthonormal.
static double *random_basis(int m, int n, uint64_t seed)
{
    double *q = allocate((int64_t)m * n, sizeof *q), *tau = allocate(n, sizeof *tau);
    float *values = allocate((int64_t)m * n, sizeof *values);
    testing_fill(values, (int64_t)m * n, 1.0, seed);
    for (int64_t i = 0; i < (int64_t)m * n; i++)
        q[i] = values[i];
    assert_int_equal(LAPACKE_dgeqrf(LAPACK_COL_MAJOR, m, n, q, m, tau), 0);
    assert_int_equal(LAPACKE_dorgqr(LAPACK_COL_MAJOR, m, n, n, q, m, tau), 0);
    free(values);
    free(tau);
    return q;
}

// Singular vectors of all matrices below, column by column.
static double *long_basis, *short_basis; // [SHORT, LONG], [SHORT, SHORT]

static int make_bases(void **state)
{
    (void)state;
    long_basis = random_basis(LONG, SHORT, 11);
    short_basis = random_basis(SHORT, SHORT, 12);
    return 0;
}

static int release_bases(void **state)
{
    (void)state;
    free(long_basis);
    free(short_basis);
    return 0;
}

// A matrix of known singular values and its best approximation.
typedef struct Known {
    int m, n;
    float *a;          // [m, n]
    double *best;      // [m, n] of rank RANK
    double norm, tail; // of A, of what the best lacks
    float *up, *down;
    double *product;
} Known;

static double norm_of_difference(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(sum);
}

static Known make_known(bool is_tall, const double *sigma)
{
    Known k = {.m = is_tall ? LONG : SHORT, .n = is_tall ? SHORT : LONG};
    const int64_t count = (int64_t)k.m * k.n;
    const double *from = is_tall ? long_basis : short_basis;
    const double *right = is_tall ? short_basis : long_basis;
    double *left = allocate((int64_t)k.m * SHORT, sizeof *left),
           *whole = allocate(count, sizeof *whole);
    k.a = allocate(count, sizeof *k.a);
    k.best = allocate(count, sizeof *k.best);
    k.product = allocate(count, sizeof *k.product);
    k.up = allocate((int64_t)k.m * RANK, sizeof *k.up);
    k.down = allocate((int64_t)k.n * RANK, sizeof *k.down);
    for (int r = 0; r < SHORT; r++) {
        cblas_daxpy(k.m, sigma[r], from + (int64_t)r * k.m, 1, left + (int64_t)r * k.m, 1);
        k.norm += sigma[r] * sigma[r];
        k.tail += r >= RANK ? sigma[r] * sigma[r] : 0;
    }
    k.norm = sqrt(k.norm);
    k.tail = sqrt(k.tail);
    // By columns left is [m, r]: by rows its transpose.
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, k.m, k.n, SHORT, 1, left, k.m, right, k.n,
                0, whole, k.n);
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, k.m, k.n, RANK, 1, left, k.m, right, k.n,
                0, k.best, k.n);
    for (int64_t i = 0; i < count; i++)
        k.a[i] = (float)whole[i];
    free(left);
    free(whole);
    return k;
}

static void release_known(Known *k)
{
    free(k->a);
    free(k->best);
    free(k->product);
    free(k->up);
    free(k->down);
}

// Whether single precision is good enough for factorize().
static bool single_suffices(const Known *k)
{
    const Matrix matrix = view(k->a, k->m, k->n);
    Scratch scratch = {.R = RANK, .k = with_surplus(&matrix, RANK)};
    Arena arena = arena_start("test");
    measure_scratch(&scratch, &arena, &matrix);
    assert_ok(arena_allocate(&arena));
    assert_true(scratch.k > RANK);
    const bool suffices = factorize_single(k->up, k->down, &matrix, &scratch, &arena);
    arena_release(&arena);
    return suffices;
}

// product = up down, in double.
static void factorize_known(Known *k)
{
    double *up_d = allocate((int64_t)k->m * RANK, sizeof *up_d);
    double *down_d = allocate((int64_t)k->n * RANK, sizeof *down_d);
    assert_ok(factorize(k->up, k->down, k->a, k->m, k->n, RANK));
    for (int64_t i = 0; i < (int64_t)k->m * RANK; i++)
        up_d[i] = k->up[i];
    for (int64_t i = 0; i < (int64_t)k->n * RANK; i++)
        down_d[i] = k->down[i];
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, k->m, k->n, RANK, 1, up_d, RANK, down_d,
                k->n, 0, k->product, k->n);
    free(up_d);
    free(down_d);
}

// The product's error is the least there is, and where the cut is clear the product is the one.
// Relative to A's norm, as that is what float's rounding of A and of the factors is relative to.
static void assert_product(Known *k, double most_excess, double most_error)
{
    const int64_t count = (int64_t)k->m * k->n;
    factorize_known(k);
    const double error = norm_of_difference(k->product, k->best, count) / k->norm;
    for (int64_t i = 0; i < count; i++)
        k->best[i] = k->a[i];
    const double excess = (norm_of_difference(k->product, k->best, count) - k->tail) / k->norm;
    if (!(fabs(excess) <= most_excess && error <= most_error))
        fail_msg("%d x %d: error %.2e above the least there is, product off by %.2e", k->m, k->n,
                 excess, error);
}

static void assert_known(bool is_tall, const double *sigma, Precision precision, double most_excess,
                         double most_error)
{
    Known k = make_known(is_tall, sigma);
    if (precision != EITHER)
        assert_int_equal(single_suffices(&k), precision == SINGLE);
    assert_product(&k, most_excess, most_error);
    release_known(&k);
}

static void test_large_matrix_with_a_clear_cut(void **state)
{
    (void)state;
    double sigma[SHORT];
    for (int r = 0; r < SHORT; r++)
        sigma[r] = r < RANK ? 2 : 1 - 0.5 * r / SHORT;
    assert_known(true, sigma, SINGLE, 1e-9, 2e-6); // seen 6e-11, 4.2e-7
    assert_known(false, sigma, SINGLE, 1e-9, 2e-6);
}

static void test_large_matrix_of_slow_decay(void **state)
{
    (void)state;
    double sigma[SHORT];
    for (int r = 0; r < SHORT; r++)
        sigma[r] = pow(1 + r, -0.3);
    assert_known(true, sigma, SINGLE, 1e-9, 3e-6); // seen 5e-11, 6.1e-7
    assert_known(false, sigma, SINGLE, 1e-9, 3e-6);
}

// Nothing tells the directions apart: any are right, none may be missing.
static void test_large_matrix_of_equal_singular_values(void **state)
{
    (void)state;
    double sigma[SHORT];
    for (int r = 0; r < SHORT; r++)
        sigma[r] = 1;
    assert_known(true, sigma, DOUBLE, 1e-8, 1); // seen 2.3e-9
    for (int r = 0; r < SHORT; r++)
        sigma[r] = r < RANK / 2 ? 3 : r < 4 * RANK ? 2 : 1; // as wide as the surplus and wider
    assert_known(false, sigma, DOUBLE, 1e-8, 1);            // seen 9e-10
}

// Where single precision does not see the directions at the cut beside the largest.
static void test_large_matrix_of_wide_range(void **state)
{
    (void)state;
    double sigma[SHORT];
    for (int r = 0; r < SHORT; r++)
        sigma[r] = pow(1 + r, -2);
    assert_known(true, sigma, DOUBLE, 1e-9, 2e-7); // seen 2e-11, 4.1e-8
    for (int r = 0; r < SHORT; r++)
        sigma[r] = r < 3 ? 1000 : pow(1 + r, -0.3);
    assert_known(false, sigma, DOUBLE, 1e-9, 2e-7);
}

static void test_large_matrix_of_low_rank(void **state)
{
    (void)state;
    double sigma[SHORT] = {0};
    for (int r = 0; r < RANK / 2; r++)
        sigma[r] = 1 + r;
    assert_known(true, sigma, EITHER, 3e-6, 3e-6); // seen 8e-7 both: all of the error is left
    assert_known(false, sigma, EITHER, 3e-6, 3e-6);
}

static void test_large_zero_matrix_has_zero_factors(void **state)
{
    (void)state;
    Known k = make_known(true, (double[SHORT]){0});
    assert_false(single_suffices(&k));
    assert_ok(factorize(k.up, k.down, k.a, k.m, k.n, RANK));
    assert_true(sum_squares(k.up, (int64_t)k.m * RANK, 1) == 0);
    assert_true(sum_squares(k.down, (int64_t)k.n * RANK, 1) == 0);
    release_known(&k);
}

// The squares of these values are beyond float.
static void test_large_matrix_of_any_scale(void **state)
{
    (void)state;
    double sigma[SHORT];
    for (int r = 0; r < SHORT; r++)
        sigma[r] = 1e25 * (SHORT - r);
    assert_known(true, sigma, DOUBLE, 1e-9, 3e-7); // seen 4e-11, 6.1e-8
    for (int r = 0; r < SHORT; r++)
        sigma[r] *= 1e-50;
    assert_known(false, sigma, DOUBLE, 1e-9, 3e-7);
}

// A spectrum that single precision is enough for, unless its eigen-solver goes wrong.
static void test_faults_of_the_single_precision_solver_are_noticed(void **state)
{
    (void)state;
    double sigma[SHORT];
    for (int r = 0; r < SHORT; r++)
        sigma[r] = pow(1 + r, -0.3);
    Known k = make_known(true, sigma);
    assert_true(single_suffices(&k));
    for (eigen_fault = NOT_CONVERGED; eigen_fault < N_EIGEN_FAULTS; eigen_fault++)
        if (single_suffices(&k))
            fail_msg("fault %d is not noticed", (int)eigen_fault);
    eigen_fault = NOT_CONVERGED;
    assert_product(&k, 1e-9, 2e-7); // seen 4e-11, 2.7e-8
    release_known(&k);
    eigen_fault = NO_FAULT;
}

static void test_large_matrix_that_is_not_finite_is_refused(void **state)
{
    (void)state;
    float *a = allocate((int64_t)LONG * SHORT, sizeof *a);
    a[(LONG - 1) * SHORT + 5] = INFINITY;
    assert_fails(BAD_INPUT, "value at row 899, column 5 is inf",
                 factorize(up, down, a, LONG, SHORT, 1));
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_factors_are_the_nearest_of_their_rank),
        cmocka_unit_test(test_factors_of_any_scale_are_as_exact),
        cmocka_unit_test(test_rank_deficient_matrix_keeps_its_product),
        cmocka_unit_test(test_zero_matrix_has_zero_factors),
        cmocka_unit_test(test_matrix_that_is_not_finite_is_refused),
        cmocka_unit_test(test_large_matrix_with_a_clear_cut),
        cmocka_unit_test(test_large_matrix_of_slow_decay),
        cmocka_unit_test(test_large_matrix_of_equal_singular_values),
        cmocka_unit_test(test_large_matrix_of_wide_range),
        cmocka_unit_test(test_large_matrix_of_low_rank),
        cmocka_unit_test(test_large_zero_matrix_has_zero_factors),
        cmocka_unit_test(test_large_matrix_of_any_scale),
        cmocka_unit_test(test_faults_of_the_single_precision_solver_are_noticed),
        cmocka_unit_test(test_large_matrix_that_is_not_finite_is_refused),
    };
    return cmocka_run_group_tests(tests, make_bases, release_bases);
}
