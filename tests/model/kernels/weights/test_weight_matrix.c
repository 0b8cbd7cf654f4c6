// Matrices of weights as rows, in blocks and in panels: what is written is read again, every number
// has a place of its own, and rows have views.
#include "tests/support/testing.h"

#include "model/kernels/weights/weight_matrix.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 64, MOST_COLUMNS = 1100 };

// Whole numbers up to 255 are exact in every dtype.
static float number(int row, int column)
{
    return (float)((row * 7 + column * 13) % 251);
}

// In two parts, as neighbouring tensors of one matrix come.
static void write(void *values, const WeightMatrix *w)
{
    static float rows[MOST_ROWS * MOST_COLUMNS];
    const int first_part = w->n_out / 2;
    for (int r = 0; r < w->n_out; r++)
        for (int c = 0; c < w->n_in; c++)
            rows[r * w->n_in + c] = number(r, c);
    weight_rows_write(values, w, 0, first_part, rows);
    weight_rows_write(values, w, first_part, w->n_out - first_part, rows + first_part * w->n_in);
}

static void check_matrix(DType dtype, int n_out, int n_in, WeightLayout layout)
{
    WeightMatrix w = {NULL, dtype, n_out, n_in, layout};
    // Exactly as many bytes as the numbers take: the address sanitizer sees what goes beyond.
    void *values = malloc((size_t)weight_matrix_bytes(&w));
    float row[MOST_COLUMNS];
    w.values = values;
    assert_non_null(values);
    write(values, &w);
    for (int r = 0; r < n_out; r++) {
        weight_row_read(row, &w, r);
        for (int c = 0; c < n_in; c++)
            if (row[c] != number(r, c))
                fail_msg("row %d, column %d: %g", r, c, (double)row[c]);
    }
    free(values);
}

static void test_rows_are_read_as_they_were_written(void **state)
{
    (void)state;
    check_matrix(DTYPE_F32, 5, 7, WEIGHT_ROWS);
    check_matrix(DTYPE_F16, 5, 7, WEIGHT_ROWS);
    check_matrix(DTYPE_BF16, 33, 64, WEIGHT_ROWS);
    // One block, whole blocks, a last block of one row and of 31 rows.
    check_matrix(DTYPE_BF16, 32, 32, WEIGHT_BLOCKS);
    check_matrix(DTYPE_BF16, 64, 96, WEIGHT_BLOCKS);
    check_matrix(DTYPE_BF16, 33, 64, WEIGHT_BLOCKS);
    check_matrix(DTYPE_BF16, 31, 96, WEIGHT_BLOCKS);
    // One panel, one that two writes fill, columns that end within a step or a pair, several chunks
    // of a row.
    check_matrix(DTYPE_BF16, 16, 32, WEIGHT_PANELS);
    check_matrix(DTYPE_BF16, 33, 64, WEIGHT_PANELS);
    check_matrix(DTYPE_BF16, 50, 45, WEIGHT_PANELS);
    check_matrix(DTYPE_BF16, 1, 1, WEIGHT_PANELS);
    check_matrix(DTYPE_BF16, 17, 1099, WEIGHT_PANELS);
}

// The layout that the header draws: 32 x 32 numbers, the last block shorter.
static void test_blocks_lie_as_described(void **state)
{
    (void)state;
    enum { N_OUT = 40, N_IN = 64 };
    uint16_t values[N_OUT * N_IN];
    const WeightMatrix w = {values, DTYPE_BF16, N_OUT, N_IN, WEIGHT_BLOCKS};
    write(values, &w);
    for (int row = 0; row < N_OUT; row++)
        for (int column = 0; column < N_IN; column++) {
            const int top = row / 32 * 32, height = top + 32 <= N_OUT ? 32 : N_OUT - top;
            const int at = top * N_IN + column / 32 * height * 32 + (row - top) * 32 + column % 32;
            float value;
            dtype_widen(&value, values + at, DTYPE_BF16, 1);
            assert_true(value == number(row, column));
        }
}

// Pairs of columns of 16 rows, and zeros where the matrix ends.
static void test_panels_lie_as_described(void **state)
{
    (void)state;
    enum { N_OUT = 21, N_IN = 37, WIDTH = 64 };
    uint16_t values[2 * 16 * WIDTH];
    const WeightMatrix w = {values, DTYPE_BF16, N_OUT, N_IN, WEIGHT_PANELS};
    assert_int_equal(weight_matrix_bytes(&w), sizeof values);
    memset(values, 0xff, sizeof values);
    write(values, &w);
    for (int row = 0; row < 32; row++)
        for (int column = 0; column < WIDTH; column++) {
            const int at = row / 16 * 16 * WIDTH + column / 2 * 32 + row % 16 * 2 + column % 2;
            float value;
            dtype_widen(&value, values + at, DTYPE_BF16, 1);
            assert_true(value == (row < N_OUT && column < N_IN ? number(row, column) : 0));
        }
    float row[N_IN];
    const WeightMatrix last = weight_rows(&w, 16, 5);
    weight_row_read(row, &last, 4);
    for (int column = 0; column < N_IN; column++)
        assert_true(row[column] == number(20, column));
}

static void test_a_view_begins_at_its_row(void **state)
{
    (void)state;
    float values[5 * 3], row[3];
    const WeightMatrix w = {values, DTYPE_F32, 5, 3, WEIGHT_ROWS};
    write(values, &w);
    const WeightMatrix rows = weight_rows(&w, 2, 2);
    assert_int_equal(rows.n_out, 2);
    weight_row_read(row, &rows, 1);
    for (int c = 0; c < 3; c++)
        assert_true(row[c] == number(3, c));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_read_as_they_were_written),
        cmocka_unit_test(test_blocks_lie_as_described),
        cmocka_unit_test(test_panels_lie_as_described),
        cmocka_unit_test(test_a_view_begins_at_its_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
