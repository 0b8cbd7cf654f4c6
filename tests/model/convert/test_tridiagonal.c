// model/tridiagonal: the vectors solve T v = lambda v for LAPACK's largest eigenvalues and are
// orthonormal, where eigenvalues are apart and where they are not.
#include "tests/support/testing.h"

#include "model/convert/tridiagonal.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 600 };

// T and what is found of it.
typedef struct Problem {
    int n, k;
    double diagonal[MOST], below[MOST], values[MOST];
    float vectors[MOST * MOST]; // [n, k]
} Problem;

static Problem problem;

static void solve(Problem *x)
{
    double diagonal[MOST], below[MOST];
    memcpy(diagonal, x->diagonal, sizeof diagonal);
    memcpy(below, x->below, sizeof below);
    TridiagonalRoom room;
    Arena arena = arena_start("test");
    tridiagonal_place(&room, &arena, x->n, x->k);
    assert_ok(arena_allocate(&arena));
    tridiagonal_place(&room, &arena, x->n, x->k);
    assert_ok(tridiagonal_largest(x->vectors, x->k, x->values, diagonal, below, x->n, x->k, &room));
    arena_release(&arena);
}

static double vector_at(const Problem *x, int i, int c)
{
    return (double)x->vectors[(int64_t)i * x->k + c];
}

static double dot_of(const Problem *x, int a, int b)
{
    double dot = 0;
    for (int i = 0; i < x->n; i++)
        dot += vector_at(x, i, a) * vector_at(x, i, b);
    return dot;
}

// |T v - lambda v|.
static double residual(const Problem *x, int c)
{
    double sum = 0;
    for (int i = 0; i < x->n; i++) {
        double rest = (x->diagonal[i] - x->values[c]) * vector_at(x, i, c);
        rest += i > 0 ? x->below[i - 1] * vector_at(x, i - 1, c) : 0;
        rest += i < x->n - 1 ? x->below[i] * vector_at(x, i + 1, c) : 0;
        sum += rest * rest;
    }
    return sqrt(sum);
}

static void assert_solved(Problem *x)
{
    double expected[MOST], below[MOST], norm = 0;
    memcpy(expected, x->diagonal, sizeof expected);
    memcpy(below, x->below, sizeof below);
    assert_int_equal(LAPACKE_dsterf(x->n, expected, below), 0);
    norm = fmax(fabs(expected[0]), fabs(expected[x->n - 1]));
    solve(x);
    for (int c = 0; c < x->k; c++) {
        const double value = expected[x->n - x->k + c];
        if (!(fabs(x->values[c] - value) <= 2e-14 * norm)) // seen 5.3e-15
            fail_msg("%d of %d: value %d is %g, expected %g", x->k, x->n, c, x->values[c], value);
        if (!(residual(x, c) <= 2e-7 * norm)) // seen 4.9e-8: float's rounding
            fail_msg("%d of %d: residual %d is %g", x->k, x->n, c, residual(x, c) / norm);
        for (int b = 0; b <= c; b++)
            if (!(fabs(dot_of(x, b, c) - (b == c)) < 2e-7)) // seen 7.2e-8
                fail_msg("%d of %d: vectors %d, %d have dot %g", x->k, x->n, b, c, dot_of(x, b, c));
    }
}

static void fill_random(Problem *x, int n, int k, double scale)
{
    float numbers[2 * MOST];
    testing_fill(numbers, 2 * MOST, 1.0, 31);
    x->n = n;
    x->k = k;
    for (int i = 0; i < n; i++) {
        x->diagonal[i] = scale * (double)numbers[i];
        x->below[i] = scale * (double)numbers[MOST + i];
    }
}

// Sizes around multiples of the vectors that are found together.
static void test_vectors_solve_their_equation(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1},   {2, 1},    {5, 5},    {16, 16},
                                   {40, 17}, {300, 33}, {300, 47}, {MOST, 100}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fill_random(&problem, sizes[i][0], sizes[i][1], 1.0);
        assert_solved(&problem);
    }
}

static void test_scale_does_not_matter(void **state)
{
    (void)state;
    fill_random(&problem, 200, 40, 1e-150);
    assert_solved(&problem);
    fill_random(&problem, 200, 40, 1e150);
    assert_solved(&problem);
}

static void test_matrix_that_falls_apart(void **state)
{
    (void)state;
    fill_random(&problem, 200, 60, 1.0);
    for (int i = 0; i < 200; i += 3)
        problem.below[i] = 0;
    assert_solved(&problem);
    memset(problem.below, 0, sizeof problem.below); // diagonal
    assert_solved(&problem);
}

// Wilkinson's, whose largest eigenvalues come in pairs that agree to the last bits.
static void test_eigenvalues_that_are_too_close(void **state)
{
    (void)state;
    problem.n = 101;
    problem.k = 20;
    for (int i = 0; i < 101; i++) {
        problem.diagonal[i] = abs(50 - i);
        problem.below[i] = 1;
    }
    assert_solved(&problem);
    for (int i = 0; i < 101; i++) { // all the same, but for rounding
        problem.diagonal[i] = 1;
        problem.below[i] = 1e-12;
    }
    assert_solved(&problem);
    memset(problem.diagonal, 0, sizeof problem.diagonal);
    memset(problem.below, 0, sizeof problem.below);
    assert_solved(&problem);
}

// Numbers that float holds only with fewer digits would slow down what comes after.
static void test_localized_vectors_have_no_denormal_tails(void **state)
{
    (void)state;
    problem.n = MOST;
    problem.k = 10;
    for (int i = 0; i < MOST; i++) {
        problem.diagonal[i] = i;
        problem.below[i] = 0.5;
    }
    assert_solved(&problem);
    for (int i = 0; i < MOST * problem.k; i++)
        assert_true(problem.vectors[i] == 0 || fabsf(problem.vectors[i]) > 1e-30f);
}

static void test_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    static float alone[300 * 90];
    const int n_threads = omp_get_max_threads();
    fill_random(&problem, 300, 90, 1.0);
    omp_set_num_threads(1);
    solve(&problem);
    memcpy(alone, problem.vectors, sizeof alone);
    omp_set_num_threads(3);
    solve(&problem);
    omp_set_num_threads(n_threads);
    assert_memory_equal(problem.vectors, alone, sizeof alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_solve_their_equation),
        cmocka_unit_test(test_scale_does_not_matter),
        cmocka_unit_test(test_matrix_that_falls_apart),
        cmocka_unit_test(test_eigenvalues_that_are_too_close),
        cmocka_unit_test(test_localized_vectors_have_no_denormal_tails),
        cmocka_unit_test(test_bits_do_not_depend_on_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
