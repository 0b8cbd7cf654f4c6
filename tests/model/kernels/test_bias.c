// Biases added to rows, and their gradients, against plain sums; rows wider than the bias.
#include "tests/support/testing.h"

#include "model/kernels/bias.h"
#include "model/kernels/half.h"
#include "tests/reference/ref.h"

#include <stdlib.h>

enum { N = 37, WIDTH = 150, PADDING = 3, LD = WIDTH + PADDING };

static float random_at(const float *values, DType dtype, int64_t i)
{
    return dtype == DTYPE_BF16 ? half_bf16_to_f32(half_f32_to_bf16(values[i])) : values[i];
}

// The same numbers as rows of either type; `buffer` is what they lie in.
static Rows make_rows(void *buffer, const float *values, DType dtype)
{
    dtype_narrow(buffer, dtype, values, N * LD);
    return (Rows){buffer, dtype, LD};
}

static float read(Rows rows, int n, int i)
{
    float value;
    dtype_widen(&value, rows_at(rows, n, i).data, rows.dtype, 1);
    return value;
}

static void check(DType dtype)
{
    float *values = ref_random(N * LD, 1.0, 1), *b = ref_random(WIDTH, 1.0, 2),
          *db = ref_random(WIDTH, 1.0, 3), *fresh = ref_random(WIDTH, 1.0, 4);
    float *buffer = ref_random(N * LD, 1.0, 5);
    Rows rows = make_rows(buffer, values, dtype);
    bias_forward(rows, b, N, WIDTH);
    for (int n = 0; n < N; n++)
        for (int i = 0; i < LD; i++) {
            const float x = random_at(values, dtype, n * LD + i), y = i < WIDTH ? x + b[i] : x;
            assert_true(read(rows, n, i) == random_at(&y, dtype, 0));
        }
    rows = make_rows(buffer, values, dtype);
    for (int i = 0; i < WIDTH; i++) {
        double sum = 0;
        for (int n = 0; n < N; n++)
            sum += (double)random_at(values, dtype, n * LD + i);
        b[i] = (float)sum;
        fresh[i] = (float)((double)db[i] + sum);
    }
    bias_backward(db, rows, N, WIDTH, true);
    assert_memory_equal(db, fresh, WIDTH * sizeof *db);
    bias_backward(db, rows, N, WIDTH, false);
    assert_memory_equal(db, b, WIDTH * sizeof *db);
    bias_backward(NULL, rows, N, WIDTH, false);
    free(values), free(b), free(db), free(fresh), free(buffer);
}

static void test_float32(void **state)
{
    (void)state;
    check(DTYPE_F32);
}

static void test_bfloat16(void **state)
{
    (void)state;
    check(DTYPE_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_float32),
                                       cmocka_unit_test(test_bfloat16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
