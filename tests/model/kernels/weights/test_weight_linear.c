// Products with weights as a file has them, from one token to a prompt: every way of computing them
// against sums in double, the same on any number of threads, and one token the same whatever the
// batch. The source is included to reach the ways this machine would not choose.
#include "tests/support/testing.h"
#include "tests/support/testing_compute.h"

#include "model/kernels/compute.h"
#include "model/kernels/half.h"
#include "model/kernels/weights/weight_linear.c"
#include "tests/reference/ref.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct Shape {
    int n_out, n_in;
} Shape;

// Around a tile's 16 outputs and 32 inputs, and a widened block and item of rows.
static const Shape shapes[] = {{1, 1},   {16, 32}, {37, 50},   {48, 33},
                               {20, 64}, {71, 96}, {4099, 272}};
static const Shape LARGE = {4099, 272};
static const DType dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
// Around the tokens of one, two and three tiles, of a group, of a block of groups.
static const int batches[] = {1, 2, 5, 6, 16, 33, WEIGHT_DIRECT_TOKENS, WEIGHT_DIRECT_TOKENS + 1};

enum {
    MOST_N = WEIGHT_DIRECT_TOKENS + 1,
    N_BATCHES = sizeof batches / sizeof *batches,
    N_SHAPES = sizeof shapes / sizeof *shapes
};

enum {
    N_CHOSEN = sizeof ways / sizeof *ways,
    N_WAYS = N_CHOSEN + sizeof reproducible_ways / sizeof *reproducible_ways
};

static const Way *way_at(int i)
{
    return i < N_CHOSEN ? &ways[i] : &reproducible_ways[i - N_CHOSEN];
}

typedef struct Weights {
    WeightMatrix matrix;
    void *values;
    float *widened;
} Weights;

static Weights make_as(const Shape *shape, DType dtype, WeightLayout layout)
{
    Weights w = {
        .matrix = {.dtype = dtype, .n_out = shape->n_out, .n_in = shape->n_in, .layout = layout}};
    const int64_t count = (int64_t)shape->n_out * shape->n_in;
    w.widened = ref_random(count, 1.0, 1);
    w.values = aligned_alloc(64, (size_t)round_up((int)weight_matrix_bytes(&w.matrix), 64));
    assert_non_null(w.values);
    weight_rows_write(w.values, &w.matrix, 0, shape->n_out, w.widened);
    w.matrix.values = w.values;
    for (int row = 0; row < shape->n_out; row++)
        weight_row_read(w.widened + (int64_t)row * shape->n_in, &w.matrix, row);
    return w;
}

static Weights make(const Shape *shape, DType dtype)
{
    return make_as(shape, dtype, WEIGHT_ROWS);
}

static void release(Weights *w)
{
    free(w->values);
    free(w->widened);
}

// Of the largest batch, since a way may be tried where another would be chosen; at a multiple of 64
// bytes, NaN.
static float *make_scratch(const WeightMatrix *w)
{
    const int64_t count = weight_linear_scratch_floats(MOST_N, w->n_out, w->n_in);
    float *scratch = aligned_alloc(64, (size_t)round_up((int)count, 16) * sizeof *scratch);
    assert_non_null(scratch);
    memset(scratch, 0xff, (size_t)count * sizeof *scratch);
    return scratch;
}

// To bfloat16, as products with panels do.
static void round_rows(float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        x[i] = half_bf16_to_f32(half_f32_to_bf16(x[i]));
}

// Outputs that are written start as NaN, others as numbers that must be added to.
static void check_way(const Way *way, const Weights *w, int N, bool add)
{
    const int n_in = w->matrix.n_in, n_out = w->matrix.n_out, ldx = n_in + 3, ldy = n_out + 5;
    const int64_t count = (int64_t)N * ldy;
    float *x = ref_random((int64_t)N * ldx, 1.0, 2), *y = ref_random(count, 1.0, 3);
    float *scratch = make_scratch(&w->matrix), *expected = ref_floats(count);
    const WeightOperands operands = operands_of(y, ldy, x, ldx, &w->matrix, N, add);
    for (int i = 0; !add && i < N; i++)
        memset(y + (int64_t)i * ldy, 0xff, (size_t)n_out * sizeof *y);
    memcpy(expected, y, (size_t)count * sizeof *y);
    if (way->fits(&operands)) {
        if (w->matrix.layout == WEIGHT_PANELS) // what is rounded already is not rounded again
            round_rows(x, (int64_t)N * ldx);
        ref_linear_forward(expected, ldy, x, ldx, w->widened, N, n_in, n_out, add);
        way->multiply(&operands, scratch);
    }
    for (int i = 0; i < N; i++) // the padding between the rows keeps its bits
        assert_memory_equal(y + (int64_t)i * ldy + n_out, expected + (int64_t)i * ldy + n_out,
                            5 * sizeof *y);
    if (way->fits(&operands))
        testing_assert_close(way->name, y, expected, count, 1e-6); // seen 4.6e-7
    free(x);
    free(y);
    free(scratch);
    free(expected);
}

static void check_every_way(const Shape *shape, DType dtype, WeightLayout layout)
{
    Weights w = make_as(shape, dtype, layout);
    for (int i = 0; i < N_WAYS; i++)
        // The large one, which takes long, with the fewest and the most tokens.
        for (int b = 0; b < N_BATCHES; b += shape == &shapes[N_SHAPES - 1] ? N_BATCHES - 1 : 1) {
            check_way(way_at(i), &w, batches[b], false);
            check_way(way_at(i), &w, batches[b], true);
        }
    release(&w);
}

static void test_every_way(void **state)
{
    (void)state;
    for (int s = 0; s < N_SHAPES; s++)
        for (int d = 0; d < 3; d++) {
            check_every_way(&shapes[s], dtypes[d], WEIGHT_ROWS);
            if (weight_layout_best(dtypes[d], shapes[s].n_in) == WEIGHT_BLOCKS)
                check_every_way(&shapes[s], dtypes[d], WEIGHT_BLOCKS);
        }
}

// By every kernel of products in bfloat16 that this machine has.
static void test_panels_by_every_kernel(void **state)
{
    (void)state;
    const Bf16Kernel best = bf16_kernel();
    for (int kernel = -1; testing_next_kernel(&kernel);) {
        for (int s = 0; s < N_SHAPES; s++)
            check_every_way(&shapes[s], DTYPE_BF16, WEIGHT_PANELS);
    }
    bf16_force_kernel(best);
}

// Blocks and rows, and a single token's own kernel, are no different to the reader of y.
static void test_blocks_give_the_bits_of_rows(void **state)
{
    (void)state;
    const Shape shape = {1001, 288};
    if (weight_layout_best(DTYPE_BF16, shape.n_in) != WEIGHT_BLOCKS)
        skip();
    Weights rows = make_as(&shape, DTYPE_BF16, WEIGHT_ROWS),
            blocks = make_as(&shape, DTYPE_BF16, WEIGHT_BLOCKS);
    float *x = ref_random((int64_t)MOST_N * shape.n_in, 1.0, 2);
    float *scratch = make_scratch(&rows.matrix);
    const int64_t count = (int64_t)MOST_N * shape.n_out;
    float *from_rows = ref_nans(count), *from_blocks = ref_nans(count);
    assert_memory_equal(rows.widened, blocks.widened,
                        (size_t)shape.n_out * (size_t)shape.n_in * sizeof *x);
    for (int b = 0; b < N_BATCHES; b++) {
        weight_linear_forward(from_rows, shape.n_out, x, shape.n_in, &rows.matrix, batches[b],
                              false, scratch);
        weight_linear_forward(from_blocks, shape.n_out, x, shape.n_in, &blocks.matrix, batches[b],
                              false, scratch);
        assert_memory_equal(from_blocks, from_rows,
                            (size_t)batches[b] * (size_t)shape.n_out * sizeof *x);
    }
    free(x);
    free(scratch);
    free(from_rows);
    free(from_blocks);
    release(&rows);
    release(&blocks);
}

// Several items of rows; few regions, since on busy cores threads wait long for one another.
static void check_threads(int N, DType dtype, WeightLayout layout)
{
    const Shape shape = {1001, 288};
    Weights w = make_as(&shape, dtype, layout);
    const int n_out = w.matrix.n_out, n_in = w.matrix.n_in;
    float *x = ref_random((int64_t)N * n_in, 1.0, 2), *scratch = make_scratch(&w.matrix);
    float *one = ref_nans((int64_t)N * n_out), *many = ref_nans((int64_t)N * n_out);
    weight_linear_forward(one, n_out, x, n_in, &w.matrix, N, false, scratch);
    for (int n_threads = 2; n_threads < 4; n_threads++) {
        omp_set_num_threads(n_threads);
        weight_linear_forward(many, n_out, x, n_in, &w.matrix, N, false, scratch);
        assert_memory_equal(many, one, (size_t)N * (size_t)n_out * sizeof *one);
    }
    omp_set_num_threads(1);
    free(x);
    free(scratch);
    free(one);
    free(many);
    release(&w);
}

static void test_threads_do_not_change_bits(void **state)
{
    (void)state;
    const WeightLayout best = weight_layout_best(DTYPE_BF16, 288);
    check_threads(1, DTYPE_BF16, best);
    check_threads(7, DTYPE_BF16, best);
    check_threads(7, DTYPE_F16, WEIGHT_ROWS);
    if (weight_amx_works())
        check_threads(MOST_N, DTYPE_BF16, best);
    check_threads(1, DTYPE_BF16, WEIGHT_PANELS);
    check_threads(MOST_N, DTYPE_BF16, WEIGHT_PANELS);
}

// Greedy decoding must give one answer alone and in a batch, and after a long prompt.
static void check_batches(const Way *way, const Weights *w)
{
    const int n_out = w->matrix.n_out, n_in = w->matrix.n_in;
    float *x = ref_random((int64_t)MOST_N * n_in, 1.0, 2);
    float *scratch = make_scratch(&w->matrix);
    float *one = ref_nans(n_out), *batch = ref_nans((int64_t)MOST_N * n_out);
    WeightOperands operands = operands_of(one, n_out, x, n_in, &w->matrix, 1, false);
    if (way->fits(&operands))
        way->multiply(&operands, scratch);
    operands.y = batch;
    for (int i = 0; i < N_BATCHES; i++) {
        operands.N = batches[i];
        if (!way->fits(&operands))
            continue;
        way->multiply(&operands, scratch);
        if (way->multiply != multiply_widened || gemm_kernel_name() != NULL)
            assert_memory_equal(batch, one, (size_t)n_out * sizeof *one);
        else // OpenBLAS promises no more
            testing_assert_close("y", batch, one, n_out, 1e-6);
    }
    free(x);
    free(scratch);
    free(one);
    free(batch);
}

static void test_a_token_has_the_same_bits_in_every_batch(void **state)
{
    (void)state;
    const Shape whole = {1001, 288};
    for (int layout = WEIGHT_BLOCKS; layout <= WEIGHT_PANELS; layout++) {
        if (layout == WEIGHT_BLOCKS && weight_layout_best(DTYPE_BF16, whole.n_in) != WEIGHT_BLOCKS)
            continue;
        Weights w = make_as(&whole, DTYPE_BF16, (WeightLayout)layout);
        for (int i = 0; i < N_WAYS; i++)
            check_batches(way_at(i), &w);
        release(&w);
    }
    for (int d = 0; d < 3; d++) {
        Weights w = make(&LARGE, dtypes[d]);
        for (int i = 0; i < N_WAYS; i++)
            check_batches(way_at(i), &w);
        release(&w);
    }
}

// The nearest bfloat16 number of every activation, ties to even: with a weight of 1 it is the
// output.
static void test_panels_round_activations_to_nearest(void **state)
{
    (void)state;
    enum { N_IN = 32 };
    Weights w = make_as(&(Shape){N_IN, N_IN}, DTYPE_BF16, WEIGHT_PANELS);
    float identity[N_IN * N_IN] = {0}, x[N_IN], y[N_IN], *scratch = make_scratch(&w.matrix);
    for (int i = 0; i < N_IN; i++) {
        identity[i * N_IN + i] = 1;
        x[i] = 1 + (float)i / 1024; // steps of bfloat16 are 1 / 128: every fourth is halfway
    }
    weight_rows_write(w.values, &w.matrix, 0, N_IN, identity);
    weight_linear_forward(y, N_IN, x, N_IN, &w.matrix, 1, false, scratch);
    for (int i = 0; i < N_IN; i++)
        assert_true(y[i] == half_bf16_to_f32(half_f32_to_bf16(x[i])));
    free(scratch);
    release(&w);
}

// What is computed in different ways for different N is the same token still.
static void test_ways_agree(void **state)
{
    (void)state;
    Weights w = make(&LARGE, DTYPE_BF16);
    const int n_out = w.matrix.n_out, n_in = w.matrix.n_in;
    float *x = ref_random(n_in, 1.0, 2), *scratch = make_scratch(&w.matrix);
    float *first = ref_nans(n_out), *second = ref_nans(n_out);
    WeightOperands operands = operands_of(first, n_out, x, n_in, &w.matrix, 1, false);
    multiply_widened(&operands, scratch);
    operands.y = second;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        if (!ways[i].fits(&operands) || ways[i].multiply == multiply_widened)
            continue;
        ways[i].multiply(&operands, scratch);
        testing_assert_close(ways[i].name, second, first, n_out, 1e-6);
    }
    free(x);
    free(scratch);
    free(first);
    free(second);
    release(&w);
}

// y = x w^T of some rows, then back through the same rows.
static void test_products_of_a_view(void **state)
{
    (void)state;
    Weights w = make(&(Shape){37, 50}, DTYPE_BF16);
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
        cmocka_unit_test(test_every_way),
        cmocka_unit_test(test_panels_by_every_kernel),
        cmocka_unit_test(test_blocks_give_the_bits_of_rows),
        cmocka_unit_test(test_threads_do_not_change_bits),
        cmocka_unit_test(test_a_token_has_the_same_bits_in_every_batch),
        cmocka_unit_test(test_panels_round_activations_to_nearest),
        cmocka_unit_test(test_ways_agree),
        cmocka_unit_test(test_products_of_a_view),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
