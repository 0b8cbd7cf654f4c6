// Products in bfloat16 by every kernel this machine has, against sums in double of rounded
// operands: at sizes around the blocks', with longer rows than needed, either operand transposed,
// in float32 or bfloat16, and results of either type.
#include "tests/support/testing.h"

#include "model/kernels/gemm.h"
#include "tests/support/testing_matrix.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { SPARE = 3 };

typedef struct Case {
    int m, n, k;
} Case;

// Around a tile, a chunk of rows, an item and a block of k.
static const Case cases[] = {
    {1, 1, 1},     {16, 16, 32},   {17, 15, 33},   {5, 33, 31},     {63, 65, 64},   {64, 32, 1},
    {97, 48, 385}, {100, 63, 576}, {31, 47, 1056}, {130, 40, 1537}, {40, 1100, 40}, {33, 17, 2600},
};

enum { N_CASES = sizeof cases / sizeof *cases };

// The low bits say which operand is transposed, the others which is in bfloat16.
enum { A_TRANSPOSED = 1, B_TRANSPOSED = 2, A_HALVES = 4, B_HALVES = 8, N_KINDS = 16 };

typedef enum Result { RESULT_WRITTEN, RESULT_ADDED, RESULT_HALVES, N_RESULTS } Result;

static Rows make_operand(int rows, int columns, bool is_transposed, bool is_halves, uint64_t seed)
{
    return is_transposed ? testing_matrix(columns, rows + SPARE, is_halves, seed)
                         : testing_matrix(rows, columns + SPARE, is_halves, seed);
}

typedef struct Operands {
    Rows a, b, c;
} Operands;

static Operands make(const Case *shape, int kind, Result result)
{
    return (Operands){
        make_operand(shape->m, shape->k, kind & A_TRANSPOSED, kind & A_HALVES, 1),
        make_operand(shape->k, shape->n, kind & B_TRANSPOSED, kind & B_HALVES, 2),
        testing_matrix(shape->m, shape->n + SPARE, result == RESULT_HALVES, 3),
    };
}

static void release(Operands *o)
{
    free(o->a.data);
    free(o->b.data);
    free(o->c.data);
}

static void multiply(const Operands *o, const Case *shape, int kind, Result result)
{
    gemm(COMPUTE_BFLOAT16, o->c, kind & A_TRANSPOSED ? gemm_rows_transposed(o->a) : gemm_rows(o->a),
         kind & B_TRANSPOSED ? gemm_rows_transposed(o->b) : gemm_rows(o->b), shape->m, shape->n,
         shape->k, result == RESULT_ADDED);
}

// What c [m, ld] must be, SPARE numbers of each row as they were.
static double *expect(const Operands *o, const Case *shape, int kind, Result result)
{
    double *expected = malloc((size_t)shape->m * (size_t)o->c.ld * sizeof *expected);
    assert_non_null(expected);
    for (int i = 0; i < shape->m; i++)
        for (int j = 0; j < o->c.ld; j++) {
            const bool is_result = j < shape->n;
            double sum =
                result == RESULT_ADDED || !is_result ? testing_matrix_value(o->c, i, j) : 0;
            for (int p = 0; p < shape->k && is_result; p++)
                sum += (kind & A_TRANSPOSED ? testing_matrix_rounded(o->a, p, i)
                                            : testing_matrix_rounded(o->a, i, p)) *
                       (kind & B_TRANSPOSED ? testing_matrix_rounded(o->b, j, p)
                                            : testing_matrix_rounded(o->b, p, j));
            expected[(int64_t)i * o->c.ld + j] = sum;
        }
    return expected;
}

// The largest difference relative to the largest expected number; a result in bfloat16 is off by
// half of its last bit, 2^-8 of itself, more at most.
static void check(const Operands *o, const Case *shape, const double *expected, Result result)
{
    double largest = 0, worst = 0;
    for (int64_t i = 0; i < (int64_t)shape->m * o->c.ld; i++)
        largest = fmax(largest, fabs(expected[i]));
    for (int i = 0; i < shape->m; i++)
        for (int j = 0; j < o->c.ld; j++) {
            const double want = expected[(int64_t)i * o->c.ld + j];
            double off = fabs(testing_matrix_value(o->c, i, j) - want);
            if (result == RESULT_HALVES)
                off = fmax(off - fabs(want) / 256, 0);
            worst = fmax(worst, off / largest);
        }
    if (!(worst < 2e-6)) // seen 4e-7
        fail_msg("%s, %d x %d x %d: off by %g", bf16_kernel_name(), shape->m, shape->n, shape->k,
                 worst);
}

static void check_case(const Case *shape, int kind, Result result)
{
    double *expected = NULL;
    for (Bf16Kernel kernel = 0; kernel < N_BF16_KERNELS; kernel++) {
        if (!bf16_kernel_is_there(kernel))
            continue;
        Operands o = make(shape, kind, result);
        if (expected == NULL)
            expected = expect(&o, shape, kind, result);
        bf16_force_kernel(kernel);
        multiply(&o, shape, kind, result);
        check(&o, shape, expected, result);
        release(&o);
    }
    free(expected);
}

static void test_every_kernel(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            if (TESTING_IS_SANITIZED && (i + kind) % 3 != 0)
                continue;
            check_case(&cases[i], kind, (Result)((i + kind / 4 + kind) % N_RESULTS));
        }
}

// Rows cut from the product, and products on several threads, have the same bits.
static void check_bits(const Case *shape, int kind, Result result)
{
    Operands one = make(shape, kind, result);
    omp_set_num_threads(1);
    multiply(&one, shape, kind, result);
    const size_t row_bytes = (size_t)(one.c.ld * dtype_size_bytes(one.c.dtype));
    for (int n_threads = 2; n_threads < 6; n_threads++) {
        Operands many = make(shape, kind, result);
        omp_set_num_threads(n_threads);
        multiply(&many, shape, kind, result);
        assert_memory_equal(many.c.data, one.c.data, (size_t)shape->m * row_bytes);
        release(&many);
    }
    if (!(kind & A_TRANSPOSED)) {
        Operands few = make(shape, kind, result);
        multiply(&few, &(Case){shape->m / 3, shape->n, shape->k}, kind, result);
        assert_memory_equal(few.c.data, one.c.data, (size_t)(shape->m / 3) * row_bytes);
        release(&few);
    }
    release(&one);
}

static void test_bits_depend_on_k_alone(void **state)
{
    (void)state;
    for (Bf16Kernel kernel = 0; kernel < N_BF16_KERNELS; kernel++) {
        if (!bf16_kernel_is_there(kernel))
            continue;
        bf16_force_kernel(kernel);
        // A_TRANSPOSED, B_TRANSPOSED and what is in halves all still occur.
        for (int kind = 0; kind < N_KINDS; kind += TESTING_IS_SANITIZED ? 5 : 1) {
            check_bits(&(Case){301, 515, 1100}, kind, (Result)(kind % N_RESULTS));
            check_bits(&(Case){201, 48, 800}, kind, (Result)(kind % N_RESULTS));
        }
    }
    omp_set_num_threads(1);
}

// Not a number and infinity reach every result that they are part of, and no other.
static void test_numbers_that_are_not_finite(void **state)
{
    (void)state;
    const Case shape = {20, 40, 70};
    const float specials[] = {NAN, INFINITY, -INFINITY};
    for (Bf16Kernel kernel = 0; kernel < N_BF16_KERNELS; kernel++)
        for (int s = 0; s < 3; s++) {
            if (!bf16_kernel_is_there(kernel))
                continue;
            bf16_force_kernel(kernel);
            Operands o = make(&shape, 0, RESULT_WRITTEN);
            *(float *)rows_at(o.a, 18, 69).data = specials[s];
            multiply(&o, &shape, 0, RESULT_WRITTEN);
            for (int i = 0; i < shape.m; i++)
                for (int j = 0; j < shape.n; j++)
                    assert_int_equal(isfinite(testing_matrix_value(o.c, i, j)) == 0, i == 18);
            const double want = (double)specials[s] * testing_matrix_rounded(o.b, 69, 7);
            assert_true(isnan(want) ? isnan(testing_matrix_value(o.c, 18, 7))
                                    : testing_matrix_value(o.c, 18, 7) == want);
            release(&o);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kernel),
        cmocka_unit_test(test_bits_depend_on_k_alone),
        cmocka_unit_test(test_numbers_that_are_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
