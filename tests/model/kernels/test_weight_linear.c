// Products with weights as a file has them, from one token to a prompt: against sums in double, the
// same on any number of threads, and one token the same whatever the batch.
#include "tests/support/testing.h"

#include "model/kernels/weight_linear.h"
#include "tests/reference/ref.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

// Rows of the second do not fit one item of a thread, nor one widened block.
typedef struct Shape {
    int n_out, n_in;
} Shape;

static const Shape shapes[] = {{37, 50}, {4099, 272}};
static const DType dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
static const int batches[] = {1, 2, 7, 16, WEIGHT_DIRECT_TOKENS, WEIGHT_DIRECT_TOKENS + 1};

enum { MOST_N = WEIGHT_DIRECT_TOKENS + 1, N_BATCHES = sizeof batches / sizeof *batches };

typedef struct Weights {
    WeightMatrix matrix;
    void *values;
    float *widened;
} Weights;

static Weights make(const Shape *shape, DType dtype)
{
    Weights w = {.matrix = {.dtype = dtype, .n_out = shape->n_out, .n_in = shape->n_in}};
    const int64_t count = (int64_t)shape->n_out * shape->n_in;
    w.widened = ref_random(count, 1.0, 1);
    w.values = malloc((size_t)(count * dtype_size_bytes(dtype)));
    assert_non_null(w.values);
    dtype_narrow(w.values, dtype, w.widened, count);
    dtype_widen(w.widened, w.values, dtype, count);
    w.matrix.values = w.values;
    return w;
}

static void release(Weights *w)
{
    free(w->values);
    free(w->widened);
}

// Outputs that are written start as NaN, others as numbers that must be added to.
static void check_forward(const Weights *w, int N, bool add)
{
    const int n_in = w->matrix.n_in, n_out = w->matrix.n_out, ldx = n_in + 3, ldy = n_out + 5;
    const int64_t count = (int64_t)N * ldy;
    float *x = ref_random((int64_t)N * ldx, 1.0, 2), *y = ref_random(count, 1.0, 3);
    float *scratch = ref_nans(weight_linear_scratch_floats(N, n_out, n_in));
    float *expected = ref_floats(count);
    for (int i = 0; !add && i < N; i++)
        memset(y + (int64_t)i * ldy, 0xff, (size_t)n_out * sizeof *y);
    memcpy(expected, y, (size_t)count * sizeof *y);
    ref_linear_forward(expected, ldy, x, ldx, w->widened, N, n_in, n_out, add);
    weight_linear_forward(y, ldy, x, ldx, &w->matrix, N, add, scratch);
    testing_assert_close("y", y, expected, count, 1e-6);
    free(x);
    free(y);
    free(scratch);
    free(expected);
}

static void test_forward(void **state)
{
    (void)state;
    for (int s = 0; s < 2; s++)
        for (int d = 0; d < 3; d++) {
            Weights w = make(&shapes[s], dtypes[d]);
            for (int i = 0; i < N_BATCHES; i++)
                check_forward(&w, batches[i], i % 2 == 1);
            release(&w);
        }
}

static void test_threads_do_not_change_bits(void **state)
{
    (void)state;
    Weights w = make(&shapes[1], DTYPE_BF16);
    const int n_out = w.matrix.n_out, n_in = w.matrix.n_in;
    float *x = ref_random((int64_t)7 * n_in, 1.0, 2);
    float *one = ref_nans((int64_t)7 * n_out), *many = ref_nans((int64_t)7 * n_out);
    weight_linear_forward(one, n_out, x, n_in, &w.matrix, 7, false, NULL);
    for (int n_threads = 2; n_threads < 5; n_threads++) {
        omp_set_num_threads(n_threads);
        weight_linear_forward(many, n_out, x, n_in, &w.matrix, 7, false, NULL);
        assert_memory_equal(many, one, (size_t)(7 * n_out) * sizeof *one);
    }
    omp_set_num_threads(1);
    free(x);
    free(one);
    free(many);
    release(&w);
}

// Greedy decoding must give one answer alone and in a batch, and after a long prompt.
static void test_a_token_is_the_same_in_every_batch(void **state)
{
    (void)state;
    for (int d = 0; d < 3; d++) {
        Weights w = make(&shapes[1], dtypes[d]);
        const int n_out = w.matrix.n_out, n_in = w.matrix.n_in;
        float *x = ref_random((int64_t)MOST_N * n_in, 1.0, 2);
        float *scratch = ref_nans(weight_linear_scratch_floats(MOST_N, n_out, n_in));
        float *one = ref_nans(n_out), *batch = ref_nans((int64_t)MOST_N * n_out);
        weight_linear_forward(one, n_out, x, n_in, &w.matrix, 1, false, NULL);
        for (int i = 0; i < N_BATCHES; i++) {
            weight_linear_forward(batch, n_out, x, n_in, &w.matrix, batches[i], false, scratch);
            if (batches[i] <= WEIGHT_DIRECT_TOKENS)
                assert_memory_equal(batch, one, (size_t)n_out * sizeof *one);
            else
                testing_assert_close("y", batch, one, n_out, 1e-6);
        }
        free(x);
        free(scratch);
        free(one);
        free(batch);
        release(&w);
    }
}

// y = x w^T of some rows, then back through the same rows.
static void test_products_of_a_view(void **state)
{
    (void)state;
    Weights w = make(&shapes[0], DTYPE_BF16);
    const WeightMatrix rows = weight_rows(&w.matrix, 11, 20);
    const float *widened = w.widened + 11 * rows.n_in;
    float *x = ref_random(5 * 50, 1.0, 2), *y = ref_nans(5 * 20), *back = ref_nans(5 * 50);
    float *expected_y = ref_floats(5 * 20), *expected_back = ref_floats(5 * 50), row[50];
    weight_product(y, 20, x, 50, &rows, 5, false);
    ref_linear_forward(expected_y, 20, x, 50, widened, 5, 50, 20, false);
    testing_assert_close("y", y, expected_y, 5 * 20, 1e-6);
    weight_product_transposed(back, 50, y, 20, &rows, 5, false);
    ref_linear_backward_input(expected_back, 50, y, 20, widened, 5, 50, 20, false);
    testing_assert_close("back", back, expected_back, 5 * 50, 1e-6);
    weight_row_read(row, &rows, 19);
    assert_memory_equal(row, widened + 19 * 50, sizeof row);
    free(x);
    free(y);
    free(back);
    free(expected_y);
    free(expected_back);
    release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_threads_do_not_change_bits),
        cmocka_unit_test(test_a_token_is_the_same_in_every_batch),
        cmocka_unit_test(test_products_of_a_view),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
