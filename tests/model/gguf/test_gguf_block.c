// Blocks of Q8_0 against their definition in double: the scale is the largest magnitude over 127
// as a float16, a code is a number over the unrounded scale, rounded with halves away from zero.
#include "tests/support/testing.h"

#include "model/gguf/gguf_block.h"

#include <math.h>
#include <string.h>

// The float16 nearest to a positive number: 11 bits of it, but none below 2^-24.
static double nearest_half(double value)
{
    int exponent;
    frexp(value, &exponent);
    const int last = exponent - 11 > -24 ? exponent - 11 : -24;
    return ldexp(nearbyint(ldexp(value, -last)), last);
}

static double half_of(const unsigned char *bytes)
{
    const int bits = bytes[0] | bytes[1] << 8, exponent = bits >> 10, fraction = bits & 1023;
    return exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
}

static void check_block(const float *values)
{
    unsigned char block[Q8_0_BYTES];
    float largest = 0;
    for (int i = 0; i < Q8_0_NUMBERS; i++)
        largest = fmaxf(largest, fabsf(values[i]));
    q8_0_encode(block, values, Q8_0_NUMBERS);
    const float scale = largest / 127;
    assert_true(half_of(block) == nearest_half(scale));
    for (int i = 0; i < Q8_0_NUMBERS; i++) {
        const int code = (int8_t)block[2 + i];
        assert_in_range(code + 127, 0, 254);
        // Half a step, and what float arithmetic adds where a number is halfway.
        assert_true(fabs((double)values[i] / scale - code) <= 0.5 + 1e-5);
    }
}

static void test_codes_are_the_nearest(void **state)
{
    (void)state;
    float values[Q8_0_NUMBERS];
    for (int seed = 1; seed <= 200; seed++) {
        testing_fill(values, Q8_0_NUMBERS, pow(10, seed % 7 - 4), (uint64_t)seed);
        check_block(values);
    }
}

// With 127 as the largest number the scale is 1, and codes are the rounded numbers.
static void test_halves_go_away_from_zero(void **state)
{
    (void)state;
    static const float given[] = {127, -127, 0.5f, -0.5f, 2.5f, -2.5f, 3.49f, 0};
    static const int8_t expected[] = {127, -127, 1, -1, 3, -3, 3, 0};
    float values[2 * Q8_0_NUMBERS] = {0};
    unsigned char blocks[2 * Q8_0_BYTES];
    memset(blocks, 0xFF, sizeof blocks);
    memcpy(values, given, sizeof given);
    q8_0_encode(blocks, values, 2 * Q8_0_NUMBERS);
    assert_memory_equal(blocks, "\x00\x3C", 2); // 1.0
    assert_memory_equal(blocks + 2, expected, sizeof expected);
    for (int i = 0; i < Q8_0_BYTES; i++) // numbers that are all 0
        assert_int_equal(blocks[Q8_0_BYTES + i], 0);
}

// A scale that even a float has no inverse of.
static void test_the_smallest_numbers_become_zero(void **state)
{
    (void)state;
    float values[Q8_0_NUMBERS] = {1e-40f, -1e-40f};
    unsigned char block[Q8_0_BYTES];
    q8_0_encode(block, values, Q8_0_NUMBERS);
    for (int i = 0; i < Q8_0_BYTES; i++)
        assert_int_equal(block[i], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes_are_the_nearest),
        cmocka_unit_test(test_halves_go_away_from_zero),
        cmocka_unit_test(test_the_smallest_numbers_become_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
