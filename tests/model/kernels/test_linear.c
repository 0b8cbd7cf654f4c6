// Products with weight matrices: rows wider than what is multiplied, results written or added.
#include "tests/support/testing.h"

#include "model/kernels/linear.h"
#include "tests/reference/ref.h"

#include <stdlib.h>

// [N, n_in, n_out, padding of the rows]
static const int shapes[][4] = {{1, 1, 1, 0},     {1, 5, 3, 2},     {2, 64, 7, 0},
                                {7, 3, 65, 1},    {63, 17, 8, 0},   {64, 64, 64, 16},
                                {65, 129, 33, 3}, {200, 31, 130, 0}};

enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

typedef struct Case {
    int N, n_in, n_out, ldx, ldy;
    float *x, *y, *w; // [N, ldx], [N, ldy], [n_out, n_in]
    float *expected;
} Case;

static Case make_case(const int *shape)
{
    Case c = {.N = shape[0],
              .n_in = shape[1],
              .n_out = shape[2],
              .ldx = shape[1] + shape[3],
              .ldy = shape[2] + shape[3]};
    c.x = ref_random((int64_t)c.N * c.ldx, 1.0, 1);
    c.y = ref_random((int64_t)c.N * c.ldy, 1.0, 2);
    c.w = ref_random((int64_t)c.n_out * c.n_in, 1.0, 3);
    return c;
}

static void release_case(Case *c)
{
    free(c->x);
    free(c->y);
    free(c->w);
    free(c->expected);
}

static float *copy(const float *values, int64_t count)
{
    float *result = ref_floats(count);
    for (int64_t i = 0; i < count; i++)
        result[i] = values[i];
    return result;
}

static void test_forward(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_SHAPES; i++) {
        Case c = make_case(shapes[i / 2]);
        c.expected = copy(c.y, (int64_t)c.N * c.ldy);
        ref_linear_forward(c.expected, c.ldy, c.x, c.ldx, c.w, c.N, c.n_in, c.n_out, i % 2 == 1);
        linear_forward(COMPUTE_FLOAT32, rows_f32(c.y, c.ldy), rows_f32(c.x, c.ldx), c.w, c.N,
                       c.n_in, c.n_out, i % 2 == 1);
        // The padding must be untouched too. Seen 3.6e-7.
        testing_assert_close("y", c.y, c.expected, (int64_t)c.N * c.ldy, 2e-6);
        release_case(&c);
    }
}

static void test_backward_input(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_SHAPES; i++) {
        Case c = make_case(shapes[i / 2]);
        c.expected = copy(c.x, (int64_t)c.N * c.ldx);
        ref_linear_backward_input(c.expected, c.ldx, c.y, c.ldy, c.w, c.N, c.n_in, c.n_out,
                                  i % 2 == 1);
        linear_backward_input(COMPUTE_FLOAT32, rows_f32(c.x, c.ldx), rows_f32(c.y, c.ldy), c.w, c.N,
                              c.n_in, c.n_out, i % 2 == 1);
        testing_assert_close("dx", c.x, c.expected, (int64_t)c.N * c.ldx, 2e-6); // seen 4.6e-7
        release_case(&c);
    }
}

static void test_backward_weight(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_SHAPES; i++) {
        Case c = make_case(shapes[i / 2]);
        c.expected = copy(c.w, (int64_t)c.n_out * c.n_in);
        ref_linear_backward_weight(c.expected, c.y, c.ldy, c.x, c.ldx, c.N, c.n_in, c.n_out,
                                   i % 2 == 1);
        linear_backward_weight(COMPUTE_FLOAT32, c.w, rows_f32(c.y, c.ldy), rows_f32(c.x, c.ldx),
                               c.N, c.n_in, c.n_out, i % 2 == 1);
        testing_assert_close("dw", c.w, c.expected, (int64_t)c.n_out * c.n_in, 2e-6); // seen 4.4e-7
        release_case(&c);
    }
}

static void test_writing_does_not_read_what_was_there(void **state)
{
    (void)state;
    float *x = ref_random(5 * 33, 1.0, 1), *w = ref_random(9 * 33, 1.0, 2);
    float *y = ref_nans(5 * 9), *dx = ref_nans(5 * 33), *expected = ref_floats(5 * 33);
    ref_linear_forward(expected, 9, x, 33, w, 5, 33, 9, false);
    linear_forward(COMPUTE_FLOAT32, rows_f32(y, 9), rows_f32(x, 33), w, 5, 33, 9, false);
    testing_assert_close("y", y, expected, 5 * 9, 2e-6); // seen 4.9e-8
    ref_linear_backward_input(expected, 33, y, 9, w, 5, 33, 9, false);
    linear_backward_input(COMPUTE_FLOAT32, rows_f32(dx, 33), rows_f32(y, 9), w, 5, 33, 9, false);
    testing_assert_close("dx", dx, expected, 5 * 33, 2e-6); // seen 5.0e-8
    float *dw = ref_nans(9 * 33), *expected_dw = ref_floats(9 * 33);
    ref_linear_backward_weight(expected_dw, y, 9, x, 33, 5, 33, 9, false);
    linear_backward_weight(COMPUTE_FLOAT32, dw, rows_f32(y, 9), rows_f32(x, 33), 5, 33, 9, false);
    testing_assert_close("dw", dw, expected_dw, 9 * 33, 2e-6); // seen 1.0e-7
    free(dw);
    free(expected_dw);
    free(x);
    free(w);
    free(y);
    free(dx);
    free(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward_input),
        cmocka_unit_test(test_backward_weight),
        cmocka_unit_test(test_writing_does_not_read_what_was_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
