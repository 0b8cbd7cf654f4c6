// SwiGLU against its oracle, and the oracle against central differences.
#include "tests/support/testing.h"

#include "model/kernels/swiglu.h"
#include "tests/reference/ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Data {
    int N, F;
    float *gate_up, *d_act; // inputs
    float *act, *act_again, *d_gate_up;
    float *expected_act, *expected_act_again, *expected_d_gate_up;
} Data;

static Data make_data(int N, int F, double scale)
{
    int64_t narrow = (int64_t)N * F, wide = 2 * narrow;
    return (Data){N,
                  F,
                  ref_random(wide, scale, 1),
                  ref_random(narrow, 1.0, 2),
                  ref_nans(narrow),
                  ref_nans(narrow),
                  ref_nans(wide),
                  ref_nans(narrow),
                  ref_nans(narrow),
                  ref_nans(wide)};
}

static void release_data(Data *d)
{
    float *all[] = {d->gate_up,
                    d->d_act,
                    d->act,
                    d->act_again,
                    d->d_gate_up,
                    d->expected_act,
                    d->expected_act_again,
                    d->expected_d_gate_up};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static void run_both(Data *d)
{
    ref_swiglu_forward(d->expected_act, d->gate_up, d->N, d->F);
    swiglu_forward(rows_f32(d->act, d->F), rows_f32(d->gate_up, 2 * d->F), d->N, d->F);
    ref_swiglu_backward(d->expected_d_gate_up, d->expected_act_again, d->d_act, d->gate_up, d->N,
                        d->F);
    const size_t narrow_bytes = (size_t)d->N * (size_t)d->F * sizeof(float);
    memcpy(d->d_gate_up, d->gate_up, 2 * narrow_bytes);
    memcpy(d->act_again, d->d_act, narrow_bytes);
    swiglu_backward(rows_f32(d->d_gate_up, 2 * d->F), rows_f32(d->act_again, d->F), d->N,
                    d->F); // in place
}

static void compare(int N, int F, double scale)
{
    Data d = make_data(N, F, scale);
    int64_t narrow = (int64_t)N * F;
    run_both(&d);
    testing_assert_close("act", d.act, d.expected_act, narrow, 1e-6);             // seen 1.1e-7
    testing_assert_close("act again", d.act_again, d.expected_act, narrow, 1e-6); // seen 1.2e-7
    testing_assert_close("d_gate_up", d.d_gate_up, d.expected_d_gate_up, 2 * narrow,
                         1e-6); // seen 3.0e-7
    release_data(&d);
}

static void test_many_shapes(void **state)
{
    (void)state;
    const int tokens[] = {1, 2, 7, 65}, widths[] = {1, 2, 7, 15, 16, 17, 63, 64, 65, 300};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
        for (size_t j = 0; j < sizeof widths / sizeof widths[0]; j++)
            compare(tokens[i], widths[j], 1.0);
}

static void test_wide_inputs(void **state)
{
    (void)state;
    compare(5, 200, 30.0);
}

// Beyond e^88 the sigmoid is computed from a clamped exponential: still 0 or 1, never NaN.
static void test_saturated_gates(void **state)
{
    (void)state;
    enum { F = 8 };
    const float gates[F] = {-1e30f, -1e4f, -89.0f, -88.0f, 88.0f, 89.0f, 1e4f, 1e30f};
    Data d = make_data(1, F, 1.0);
    for (int f = 0; f < F; f++) {
        d.gate_up[f] = gates[f];
        d.gate_up[F + f] = 1.0f;
        d.d_act[f] = 1.0f;
    }
    run_both(&d);
    for (int f = 0; f < F; f++) {
        bool is_open = gates[f] > 0;
        // A shut gate leaks |gate| e^-88: 6e-9 of the most here, nothing of the others.
        double silu = is_open ? (double)gates[f] : 0.0, leak = is_open ? 0.0 : 1e-8;
        assert_true(fabs((double)d.act[f] - silu) <= leak);
        assert_true(fabs((double)d.d_gate_up[F + f] - silu) <= leak);
        assert_true(fabs((double)d.d_gate_up[f] - (is_open ? 1.0 : 0.0)) <= 1e-7);
    }
    release_data(&d);
}

// Values that bfloat16 holds, and their halves.
static uint16_t *round_values(float *values, int64_t count)
{
    uint16_t *halves = malloc((size_t)count * sizeof *halves);
    assert_non_null(halves);
    dtype_narrow(halves, DTYPE_BF16, values, count);
    dtype_widen(values, halves, DTYPE_BF16, count);
    return halves;
}

static void assert_rounded(const char *what, const uint16_t *halves, const float *expected,
                           int64_t count)
{
    float *values = ref_nans(count);
    dtype_widen(values, halves, DTYPE_BF16, count);
    for (int64_t i = 0; i < count; i++) {
        // Half a unit in the last place of bfloat16, and the rounding of the float32 result.
        const double error = fabs((double)values[i] - (double)expected[i]);
        if (!(error <= fabs((double)expected[i]) * 0x1.01p-8 + 1e-7))
            fail_msg("%s[%lld]: %g, expected %g", what, (long long)i, (double)values[i],
                     (double)expected[i]);
    }
    free(values);
}

static void test_bfloat16_is_rounded_once(void **state)
{
    (void)state;
    enum { N = 7, F = 65 };
    Data d = make_data(N, F, 3.0);
    uint16_t *gate_up = round_values(d.gate_up, 2 * N * F), *d_act = round_values(d.d_act, N * F);
    uint16_t act[N * F];
    run_both(&d);
    swiglu_forward(rows_bf16(act, F), rows_bf16(gate_up, 2 * F), N, F);
    assert_rounded("act", act, d.expected_act, N * F);
    swiglu_backward(rows_bf16(gate_up, 2 * F), rows_bf16(d_act, F), N, F);
    assert_rounded("act again", d_act, d.expected_act, N * F);
    assert_rounded("d_gate_up", gate_up, d.expected_d_gate_up, 2 * N * F);
    free(gate_up);
    free(d_act);
    release_data(&d);
}

static double weighted_output(void *context)
{
    const Data *d = context;
    double *act = ref_doubles((int64_t)d->N * d->F);
    exact_swiglu_forward(act, d->gate_up, d->N, d->F);
    double loss = ref_dot(act, d->d_act, (int64_t)d->N * d->F);
    free(act);
    return loss;
}

static void test_oracle_against_central_differences(void **state)
{
    (void)state;
    enum { N = 3, F = 5 };
    Data d = make_data(N, F, 1.0);
    ref_swiglu_backward(d.d_gate_up, d.act, d.d_act, d.gate_up, N, F);
    double error =
        ref_gradient_error(weighted_output, &d, d.gate_up, d.d_gate_up, 2 * N * F, 0x1p-10f);
    ref_assert_error("error", error, 1e-6); // seen 8.7e-8
    release_data(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_shapes),
        cmocka_unit_test(test_wide_inputs),
        cmocka_unit_test(test_saturated_gates),
        cmocka_unit_test(test_bfloat16_is_rounded_once),
        cmocka_unit_test(test_oracle_against_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
