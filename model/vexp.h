// e^x for loops the compiler vectorizes (it does not vectorize expf without -ffast-math).
#ifndef MHA2MLA_MODEL_VEXP_H
#define MHA2MLA_MODEL_VEXP_H

#include <stdint.h>
#include <string.h>

// Relative error below 1e-7 for x in [-87, 88]; smaller x give 0, larger ones e^88; NaN stays NaN.
// Cody-Waite reduction x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial of degree 6 on r.
static inline float vexp(float x)
{
    const float round = 12582912.0f; // 1.5 * 2^23: adding it rounds to a whole number
    float clamped = x > 88.0f ? 88.0f : x;
    clamped = clamped < -87.0f ? -87.0f : clamped;
    float shifted = clamped * 1.44269504088896341f + round;
    uint32_t n; // unsigned: a NaN's bits may be anything, and adding 127 must not overflow
    memcpy(&n, &shifted, sizeof n);
    float whole = shifted - round;
    float r = clamped - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    // Least relative error of 1 + r + r^2 q(r) on that interval: 4e-9, rounding adds the rest.
    float p = 1.3814602280e-3f;
    p = p * r + 8.3687156439e-3f;
    p = p * r + 4.1668388993e-2f;
    p = p * r + 1.6666521132e-1f;
    p = p * r + 4.9999994040e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits = (n + 127u) << 23; // the low bits of `shifted` are n
    float power;
    memcpy(&power, &bits, sizeof power);
    return x < -87.0f ? 0.0f : p * power;
}

#endif
