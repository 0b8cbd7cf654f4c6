// Matrices of weights as rows and in blocks: what is written is read again, every number has a
// place of its own, and rows have views.
#include "tests/support/testing.h"

#include "model/kernels/weights/weight_matrix.h"

#include <stdlib.h>
#include <string.h>

// Whole numbers up to 255 are exact in every dtype.
static float number(int row, int column)
{
    return (float)((row * 7 + column * 13) % 251);
}

static void write(void *values, const WeightMatrix *w)
{
    float row[96];
    for (int r = 0; r < w->n_out; r++) {
        for (int c = 0; c < w->n_in; c++)
            row[c] = number(r, c);
        weight_row_write(values, w, r, row);
    }
}

static void check_matrix(DType dtype, int n_out, int n_in, bool is_blocked)
{
    // Exactly as many bytes as the numbers take: the address sanitizer sees what goes beyond.
    void *values = malloc((size_t)(n_out * n_in * dtype_size_bytes(dtype)));
    const WeightMatrix w = {values, dtype, n_out, n_in, is_blocked};
    float row[96];
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
    check_matrix(DTYPE_F32, 5, 7, false);
    check_matrix(DTYPE_F16, 5, 7, false);
    check_matrix(DTYPE_BF16, 33, 64, false);
    // One block, whole blocks, a last block of one row and of 31 rows.
    check_matrix(DTYPE_BF16, 32, 32, true);
    check_matrix(DTYPE_BF16, 64, 96, true);
    check_matrix(DTYPE_BF16, 33, 64, true);
    check_matrix(DTYPE_BF16, 31, 96, true);
}

// The layout that the header draws: 32 x 32 numbers, the last block shorter.
static void test_blocks_lie_as_described(void **state)
{
    (void)state;
    enum { N_OUT = 40, N_IN = 64 };
    uint16_t values[N_OUT * N_IN];
    const WeightMatrix w = {values, DTYPE_BF16, N_OUT, N_IN, true};
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

static void test_a_view_begins_at_its_row(void **state)
{
    (void)state;
    float values[5 * 3], row[3];
    const WeightMatrix w = {values, DTYPE_F32, 5, 3, false};
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
        cmocka_unit_test(test_a_view_begins_at_its_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
