// e^x for loops the compiler vectorizes (it does not vectorize expf without -ffast-math).
#ifndef MHA2MLA_MODEL_KERNELS_VEXP_H
#define MHA2MLA_MODEL_KERNELS_VEXP_H

#include <stdint.h>
#include <string.h>

// Relative error below 1.1e-7 for x in [-87, 88]; smaller x give 0; NaN stays NaN. For x up to 88
// only: a softmax's, whose x are at most 0 and a rounding. Without the clamp of vexp() a loop takes
// two thirds of its time.
// Cody-Waite reduction x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial of degree 6 on r.
static inline float vexp_to_88(float x)
{
    // Adding 1.5 * 2^23 rounds to a whole number; 127 more make its low bits an exponent.
    const float round = 12582912.0f + 127.0f;
    float shifted = x * 1.44269504088896341f + round;
    float whole = shifted - round;
    float r = x - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    // Least relative error of 1 + r + r^2 q(r) on that interval: 4e-9, rounding adds the rest.
    float p = 1.3814602280e-3f;
    p = p * r + 8.3687156439e-3f;
    p = p * r + 4.1668388993e-2f;
    p = p * r + 1.6666521132e-1f;
    p = p * r + 4.9999994040e-1f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits; // unsigned: those of a NaN may be anything
    memcpy(&bits, &shifted, sizeof bits);
    bits <<= 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    p *= power;
    return x < -87.0f ? 0.0f : p;
}

// The same for any x: larger ones than 88 give e^88.
static inline float vexp(float x)
{
    return vexp_to_88(x > 88.0f ? 88.0f : x);
}

#endif
