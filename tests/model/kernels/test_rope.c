// RoPE's tables against exact angles, and rotation back as the transpose of rotation.
#include "tests/support/testing.h"

#include "model/kernels/rope.h"
#include "tests/reference/ref.h"

#include <math.h>
#include <stdlib.h>

static const RopeScaling unscaled = {0};

static void test_table_against_exact_angles(void **state)
{
    (void)state;
    enum { T = 2048, E = 64 };
    const double thetas[] = {1e4, 5e5};
    float *c = ref_nans(T * E / 2), *s = ref_nans(T * E / 2);
    for (int i = 0; i < 2; i++) {
        rope_table(c, s, T, E, thetas[i], &unscaled);
        for (int t = 0; t < T; t++)
            for (int p = 0; p < E / 2; p++) {
                double angle = t * pow(thetas[i], -2.0 * p / E);
                ref_assert_error("cos", fabs((double)c[t * E / 2 + p] - cos(angle)),
                                 3e-4); // seen 1.4e-4
                ref_assert_error("sin", fabs((double)s[t * E / 2 + p] - sin(angle)),
                                 3e-4); // seen 1.3e-4
            }
    }
    free(c);
    free(s);
}

// Llama 3.2's numbers: transformers 5.24 computes these in float32 (ROPE_INIT_FUNCTIONS["llama3"]),
// for pairs below, between and above the two wavelengths.
static void test_llama3_scaling(void **state)
{
    (void)state;
    static const RopeScaling scaling = {32, 1, 4, 8192};
    static const struct {
        int pair;
        float frequency;
    } expected[] = {{0, 1.0f},
                    {14, 0.0032114461064338684f},
                    {15, 0.0012905480107292533f},
                    {16, 0.000429556705057621f},
                    {17, 9.708286233944818e-05f},
                    {18, 1.9461638657958247e-05f},
                    {31, 9.418306490260875e-08f}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const float got = rope_frequency(expected[i].pair, 64, 500000, &scaling);
        ref_assert_error("frequency", fabs((double)got / (double)expected[i].frequency - 1),
                         3e-7); // seen LLAMA3_SEEN
    }
}

// <R x, y> = <x, R^T y>: rotation by direction -1 is the backward of direction +1.
static void test_rotation_back_is_the_transpose(void **state)
{
    (void)state;
    enum { T = 9, E = 16, P = 3 };
    static const int32_t pairs[P] = {1, 4, 6};
    float c[T * E / 2], s[T * E / 2], forward[2 * P], back[2 * P];
    rope_table(c, s, T, E, 1e4, &unscaled);
    float *x = ref_random(T * 2 * P, 1.0, 7), *y = ref_random(T * 2 * P, 1.0, 8);
    for (int t = 0; t < T; t++) {
        const float *x_t = x + t * 2 * P, *y_t = y + t * 2 * P;
        const float *cos_row = c + t * E / 2, *sin_row = s + t * E / 2;
        rope_rotate(forward, x_t, cos_row, sin_row, pairs, P, 1.0f);
        rope_rotate(back, y_t, cos_row, sin_row, pairs, P, -1.0f);
        double before = 0, after = 0;
        for (int i = 0; i < 2 * P; i++) {
            before += (double)forward[i] * (double)y_t[i];
            after += (double)x_t[i] * (double)back[i];
        }
        ref_assert_error("transpose", fabs(before - after), 1e-6); // seen 2.5e-7
    }
    free(x);
    free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_against_exact_angles),
        cmocka_unit_test(test_llama3_scaling),
        cmocka_unit_test(test_rotation_back_is_the_transpose),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
