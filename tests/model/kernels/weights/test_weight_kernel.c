// Products with weights in every dtype: every kernel this machine can run against sums in double of
// the widened weights, and that a token's bits do not depend on the tokens and outputs beside it.
#include "tests/support/testing.h"

#include "model/kernels/weights/weight_kernel.h"
#include "tests/reference/ref.h"

#include <stdlib.h>
#include <string.h>

enum { SPARE = 3 };

typedef struct Case {
    int N, n_out, n_in;
} Case;

// Around a block's tokens, rows and columns and a vector's lanes; n_in from 1 on.
static const Case cases[] = {{1, 1, 1},   {2, 3, 3},    {1, 9, 4},    {3, 5, 7},    {1, 8, 16},
                             {2, 16, 17}, {4, 13, 24},  {5, 31, 31},  {6, 32, 48},  {7, 33, 96},
                             {13, 12, 8}, {16, 20, 64}, {17, 36, 65}, {33, 24, 130}};

enum { N_CASES = sizeof cases / sizeof *cases };

static const DType dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};

typedef struct Product {
    Case shape;
    bool transposed;
    WeightOperands operands;
    float *x, *y, *widened; // of the weights: what the oracle multiplies
    void *w;
    int x_columns, y_columns;
} Product;

static Product make(const Case *shape, DType dtype, bool transposed, bool add)
{
    Product p = {.shape = *shape, .transposed = transposed};
    const int64_t n_weights = (int64_t)shape->n_out * shape->n_in;
    p.x_columns = transposed ? shape->n_out : shape->n_in;
    p.y_columns = transposed ? shape->n_in : shape->n_out;
    const int ldx = p.x_columns + SPARE, ldy = p.y_columns + SPARE;
    p.x = ref_random((int64_t)shape->N * ldx, 1.0, 1);
    p.y = ref_random((int64_t)shape->N * ldy, 1.0, 2);
    p.widened = ref_random(n_weights, 1.0, 3);
    // Exactly as many bytes as the weights have: the address sanitizer sees what reads beyond.
    p.w = malloc((size_t)(n_weights * dtype_size_bytes(dtype)));
    assert_non_null(p.w);
    dtype_narrow(p.w, dtype, p.widened, n_weights);
    dtype_widen(p.widened, p.w, dtype, n_weights);
    p.operands =
        (WeightOperands){p.y, p.x, p.w, dtype, ldy, ldx, shape->n_out, shape->n_in, shape->N, add};
    return p;
}

static void release(Product *p)
{
    free(p->x);
    free(p->y);
    free(p->w);
    free(p->widened);
}

static void run(const WeightKernel *kernel, const Product *p)
{
    if (p->transposed)
        kernel->sums(&p->operands);
    else
        kernel->dots(&p->operands, 0, p->shape.n_out);
}

static void check_case(const WeightKernel *kernel, const Case *shape, DType dtype, bool transposed,
                       bool add)
{
    Product p = make(shape, dtype, transposed, add);
    const WeightOperands *o = &p.operands;
    const int64_t count = (int64_t)shape->N * o->ldy;
    float *expected = ref_floats(count);
    memcpy(expected, p.y, (size_t)count * sizeof(float));
    if (transposed)
        ref_linear_backward_input(expected, o->ldy, p.x, o->ldx, p.widened, shape->N, shape->n_in,
                                  shape->n_out, add);
    else
        ref_linear_forward(expected, o->ldy, p.x, o->ldx, p.widened, shape->N, shape->n_in,
                           shape->n_out, add);
    run(kernel, &p);
    testing_assert_close(kernel->name, p.y, expected, count, 2e-6);
    free(expected);
    release(&p);
}

static void check_target(WeightTarget target)
{
    const WeightKernel *kernel = weight_kernel(target);
    if (kernel == NULL)
        skip();
    for (int i = 0; i < N_CASES; i++)
        for (int d = 0; d < 3 && cases[i].n_in >= kernel->lanes; d++)
            for (int kind = 0; kind < 4; kind++)
                check_case(kernel, &cases[i], dtypes[d], (kind & 1) != 0, (kind & 2) != 0);
}

static void test_narrow(void **state)
{
    (void)state;
    check_target(WEIGHT_NARROW);
}

static void test_plain(void **state)
{
    (void)state;
    check_target(WEIGHT_PLAIN);
}

static void test_avx2(void **state)
{
    (void)state;
    check_target(WEIGHT_AVX2);
}

static void test_avx512(void **state)
{
    (void)state;
    check_target(WEIGHT_AVX512);
}

// Token by token and, of dots, output by output: the same bits as all at once.
static void check_bits(const WeightKernel *kernel, DType dtype, bool transposed)
{
    Product p = make(&(Case){17, 21, 83}, dtype, transposed, false);
    run(kernel, &p);
    for (int t = 0; t < p.shape.N; t++) {
        WeightOperands one = p.operands;
        float y[83];
        one.x = p.x + (int64_t)t * one.ldx;
        one.y = y;
        one.N = 1;
        if (transposed)
            kernel->sums(&one);
        else
            for (int o = 0; o < p.shape.n_out; o++)
                kernel->dots(&one, o, 1);
        assert_memory_equal(y, p.y + (int64_t)t * p.operands.ldy,
                            (size_t)p.y_columns * sizeof(float));
    }
    release(&p);
}

static void test_bits_do_not_depend_on_what_is_beside(void **state)
{
    (void)state;
    for (WeightTarget target = 0; target < N_WEIGHT_TARGETS; target++)
        for (int d = 0; d < 3 && weight_kernel(target) != NULL; d++) {
            check_bits(weight_kernel(target), dtypes[d], false);
            check_bits(weight_kernel(target), dtypes[d], true);
        }
}

// Of matrices too narrow for a vector, a narrower one.
static void test_target_fits_the_columns(void **state)
{
    (void)state;
    for (int n_in = 1; n_in < 20; n_in++) {
        const WeightKernel *kernel = weight_kernel(weight_target(n_in));
        assert_non_null(kernel);
        assert_true(kernel->lanes <= n_in);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_narrow),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_avx512),
        cmocka_unit_test(test_bits_do_not_depend_on_what_is_beside),
        cmocka_unit_test(test_target_fits_the_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
