// RMSNorm against its oracle, and the oracle against central differences.
#include "tests/support/testing.h"

#include "model/kernels/half.h"
#include "model/kernels/rmsnorm.h"
#include "tests/reference/ref.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static const float EPS = 1e-5f;

typedef struct Data {
    int N, D;
    float *x, *w, *dy;  // inputs
    float *y, *inv_rms; // forward's outputs
    float *dx, *dw;     // backward's
    float *expected_y, *expected_inv_rms, *expected_dx, *expected_dw;
} Data;

static Data make_data(int N, int D, double scale)
{
    int64_t all = (int64_t)N * D;
    return (Data){
        N,
        D,
        ref_random(all, scale, 1),
        ref_random(D, 1.0, 2),
        ref_random(all, 1.0, 3),
        ref_nans(all),
        ref_nans(N),
        ref_random(all, 1.0, 4),
        ref_random(D, 1.0, 5),
        ref_nans(all),
        ref_nans(N),
        ref_random(all, 1.0, 4),
        ref_random(D, 1.0, 5),
    };
}

static void release_data(Data *d)
{
    float *all[] = {d->x,           d->w,          d->dy,
                    d->y,           d->inv_rms,    d->dx,
                    d->dw,          d->expected_y, d->expected_inv_rms,
                    d->expected_dx, d->expected_dw};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static void compare(int N, int D, double scale)
{
    Data d = make_data(N, D, scale);
    int64_t all = (int64_t)N * D;
    ref_rmsnorm_forward(d.expected_y, d.expected_inv_rms, d.x, d.w, N, D, EPS);
    rmsnorm_forward(rows_f32(d.y, D), d.inv_rms, NULL, d.x, d.w, N, D, EPS);
    testing_assert_close("y", d.y, d.expected_y, all, 1e-6);                 // seen 3.8e-7
    testing_assert_close("inv_rms", d.inv_rms, d.expected_inv_rms, N, 1e-6); // seen 4.4e-7
    ref_rmsnorm_backward(d.expected_dx, d.expected_dw, d.dy, d.expected_inv_rms, d.x, d.w, N, D);
    rmsnorm_backward(d.dx, (Rows){0}, d.dw, rows_f32(d.expected_y, D), d.dy, d.inv_rms,
                     rows_f32(d.x, D), d.w, N, D);
    assert_memory_equal(d.expected_y, d.y, (size_t)all * sizeof(float));
    testing_assert_close("dx", d.dx, d.expected_dx, all, 2e-6); // seen 4.8e-7
    testing_assert_close("dw", d.dw, d.expected_dw, D, 2e-6);   // seen 4.4e-7
    rmsnorm_apply(rows_f32(d.expected_y, D), d.inv_rms, rows_f32(d.x, D), d.w, N, D);
    assert_memory_equal(d.expected_y, d.y, (size_t)all * sizeof(float));
    release_data(&d);
}

static void test_many_shapes(void **state)
{
    (void)state;
    const int tokens[] = {1, 2, 7, 65}, widths[] = {1, 2, 7, 63, 64, 65, 127, 128, 129, 200, 576};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
        for (size_t j = 0; j < sizeof widths / sizeof widths[0]; j++)
            compare(tokens[i], widths[j], 1.0);
    compare(300, 64, 1.0);
}

static void test_large_and_small_inputs(void **state)
{
    (void)state;
    compare(3, 65, 1e4);
    compare(3, 65, 1e-4); // eps dominates
}

static void test_zero_row_has_zero_output_and_finite_gradient(void **state)
{
    (void)state;
    enum { D = 33 };
    Data d = make_data(1, D, 0.0);
    rmsnorm_forward(rows_f32(d.y, D), d.inv_rms, NULL, d.x, d.w, 1, D, EPS);
    rmsnorm_backward(d.dx, (Rows){0}, d.dw, (Rows){0}, d.dy, d.inv_rms, rows_f32(d.x, D), d.w, 1,
                     D);
    for (int i = 0; i < D; i++) {
        assert_true(d.y[i] == 0.0f);
        assert_true(isfinite(d.dx[i]));
        assert_true(d.dw[i] == d.expected_dw[i]);
    }
    release_data(&d);
}

static void test_row_too_large_to_square_is_nan(void **state)
{
    (void)state;
    const float x[6] = {1e20f, 0, 0, 1, 2, 3}, w[3] = {1, 1, 1};
    float y[6], inv_rms[2];
    rmsnorm_forward(rows_f32(y, 3), inv_rms, NULL, x, w, 2, 3, EPS);
    assert_true(isnan(inv_rms[0]) && isnan(y[0]) && isnan(y[1]));
    assert_true(isfinite(y[3]) && isfinite(inv_rms[1]));
}

static void test_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    enum { N = 65, D = 200 };
    Data one = make_data(N, D, 1.0), two = make_data(N, D, 1.0);
    Data *runs[] = {&one, &two};
    int threads = omp_get_max_threads();
    for (int i = 0; i < 2; i++) {
        omp_set_num_threads(i + 1);
        rmsnorm_forward(rows_f32(runs[i]->y, D), runs[i]->inv_rms, NULL, runs[i]->x, runs[i]->w, N,
                        D, EPS);
        rmsnorm_backward(runs[i]->dx, (Rows){0}, runs[i]->dw, (Rows){0}, runs[i]->dy,
                         runs[i]->inv_rms, rows_f32(runs[i]->x, D), runs[i]->w, N, D);
    }
    omp_set_num_threads(threads);
    assert_memory_equal(one.y, two.y, N * D * sizeof(float));
    assert_memory_equal(one.dx, two.dx, N * D * sizeof(float));
    assert_memory_equal(one.dw, two.dw, D * sizeof(float));
    release_data(&one);
    release_data(&two);
}

// Rows wider than D, so that a step from row to row shows.
static void test_bfloat16_is_the_float32_result_rounded_once(void **state)
{
    (void)state;
    enum { N = 33, D = 200, LD = D + 3 };
    Data d = make_data(N, D, 1.0);
    uint16_t y[N * LD], again[N * LD];
    d.x[D + 5] = NAN;
    memset(y, 0, sizeof y);
    memset(again, 0, sizeof again);
    rmsnorm_forward(rows_f32(d.y, D), d.inv_rms, d.expected_dx, d.x, d.w, N, D, EPS);
    rmsnorm_forward(rows_bf16(y, LD), d.inv_rms, NULL, d.x, d.w, N, D, EPS);
    rmsnorm_apply(rows_bf16(again, LD), d.inv_rms, rows_f32(d.x, D), d.w, N, D);
    for (int n = 0; n < N; n++)
        for (int i = 0; i < LD; i++)
            assert_int_equal(y[n * LD + i], i < D ? half_f32_to_bf16(d.y[n * D + i]) : 0);
    assert_memory_equal(again, y, sizeof y);
    memset(again, 0, sizeof again);
    rmsnorm_backward(d.dx, rows_bf16(again, LD), d.dw, (Rows){0}, d.dy, d.inv_rms, rows_f32(d.x, D),
                     d.w, N, D);
    for (int n = 0; n < N; n++)
        for (int i = 0; i < LD; i++)
            assert_int_equal(again[n * LD + i], i < D ? half_f32_to_bf16(d.dx[n * D + i]) : 0);
    assert_memory_equal(d.expected_dx, d.x, N * D * sizeof(float)); // the copy
    release_data(&d);
}

// Half a unit in the last of 8 bits is 2^-9 of a number; y has been rounded twice.
static void test_normalized_rows_stand_in_for_x(void **state)
{
    (void)state;
    enum { N = 65, D = 200, LD = D + 3, ALL = N * D };
    Data d = make_data(N, D, 1.0);
    uint16_t y[N * LD], again[N * LD], normalized[N * LD];
    ref_rmsnorm_forward(d.expected_y, d.expected_inv_rms, d.x, d.w, N, D, EPS);
    ref_rmsnorm_backward(d.expected_dx, d.expected_dw, d.dy, d.expected_inv_rms, d.x, d.w, N, D);
    memset(normalized, 0xff, sizeof normalized);
    rmsnorm_forward_keeping(rows_bf16(normalized, LD), rows_bf16(y, LD), d.inv_rms, NULL, d.x, d.w,
                            N, D, EPS);
    rmsnorm_apply(rows_bf16(again, LD), d.inv_rms, rows_bf16(normalized, LD), d.w, N, D);
    for (int n = 0; n < N; n++) {
        for (int i = 0; i < LD; i++)
            assert_int_equal(normalized[n * LD + i],
                             i < D ? half_f32_to_bf16(d.x[n * D + i] * d.inv_rms[n]) : 0xffff);
        for (int i = 0; i < D; i++)
            d.y[n * D + i] = half_bf16_to_f32(again[n * LD + i]);
    }
    testing_assert_close("y", d.y, d.expected_y, ALL, 0x1p-8);
    memset(y, 0, sizeof y);
    rmsnorm_backward(d.dx, (Rows){0}, d.dw, rows_bf16(y, LD), d.dy, d.inv_rms,
                     rows_bf16(normalized, LD), d.w, N, D);
    for (int n = 0; n < N; n++)
        assert_memory_equal(y + n * LD, again + n * LD, D * sizeof *y);
    testing_assert_close("dx", d.dx, d.expected_dx, ALL, 0x1p-9);
    testing_assert_close("dw", d.dw, d.expected_dw, D, 0x1p-9);
    release_data(&d);
}

static double weighted_output(void *context)
{
    const Data *d = context;
    double *y = ref_doubles((int64_t)d->N * d->D);
    exact_rmsnorm_forward(y, d->x, d->w, d->N, d->D, EPS);
    double loss = ref_dot(y, d->dy, (int64_t)d->N * d->D);
    free(y);
    return loss;
}

static void test_oracle_against_central_differences(void **state)
{
    (void)state;
    enum { N = 3, D = 7 };
    Data d = make_data(N, D, 1.0);
    memset(d.dx, 0, N * D * sizeof(float));
    memset(d.dw, 0, D * sizeof(float));
    ref_rmsnorm_forward(d.y, d.inv_rms, d.x, d.w, N, D, EPS);
    ref_rmsnorm_backward(d.dx, d.dw, d.dy, d.inv_rms, d.x, d.w, N, D);
    double dx_error = ref_gradient_error(weighted_output, &d, d.x, d.dx, N * D, 0x1p-10f);
    double dw_error = ref_gradient_error(weighted_output, &d, d.w, d.dw, D, 0x1p-10f);
    ref_assert_error("dx_error", dx_error, 1e-6); // seen 1.7e-7
    ref_assert_error("dw_error", dw_error, 1e-6); // seen 6.0e-8
    release_data(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_shapes),
        cmocka_unit_test(test_large_and_small_inputs),
        cmocka_unit_test(test_zero_row_has_zero_output_and_finite_gradient),
        cmocka_unit_test(test_row_too_large_to_square_is_nan),
        cmocka_unit_test(test_bits_do_not_depend_on_threads),
        cmocka_unit_test(test_bfloat16_is_the_float32_result_rounded_once),
        cmocka_unit_test(test_normalized_rows_stand_in_for_x),
        cmocka_unit_test(test_oracle_against_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
