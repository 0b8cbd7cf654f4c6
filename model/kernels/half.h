// Half floats: F16 (IEEE 754 binary16) and BF16 (the upper half of a float) from and to float.
//
//     float x = half_f16_to_f32(0x3c00);    // 1.0
//     uint16_t half = half_f32_to_bf16(x);  // 0x3f80
//
// To float is exact; from float rounds to nearest, ties to even, past the largest number to
// infinity. Bit by bit and without branches, so that loops vectorize and no CPU needs F16C; every
// one of the 65536 values keeps its bits on the way to float and back (NaN payloads too).
#ifndef MHA2MLA_MODEL_KERNELS_HALF_H
#define MHA2MLA_MODEL_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline float half_float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t half_bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float half_f16_to_f32(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7fffu) << 13, sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t normal = magnitude + (112u << 23); // 112: the difference of the exponents' biases
    uint32_t special = magnitude + (224u << 23);
    // A subnormal is its mantissa times 2^-24: put under the exponent of 2^-14, less 2^-14.
    uint32_t subnormal =
        half_bits_of(half_float_of(magnitude + (113u << 23)) - half_float_of(113u << 23));
    uint32_t bits = magnitude >= (31u << 23) ? special : normal;
    return half_float_of(sign | (magnitude < (1u << 23) ? subnormal : bits));
}

static inline uint16_t half_f32_to_f16(float value)
{
    uint32_t bits = half_bits_of(value), magnitude = bits & 0x7fffffffu;
    uint32_t odd = (magnitude >> 13) & 1u;
    uint32_t normal = (magnitude - (112u << 23) + 0xfffu + odd) >> 13;
    // Below 2^-14 the adder does the rounding: the last bit of a float near 0.5 is 2^-24.
    uint32_t subnormal = half_bits_of(half_float_of(magnitude) + 0.5f) - half_bits_of(0.5f);
    uint32_t payload = (magnitude >> 13) & 0x3ffu;
    uint32_t nan = 0x7c00u | (payload != 0 ? payload : 0x200u);
    uint32_t half = magnitude < (113u << 23) ? subnormal : normal;
    half = magnitude >= (143u << 23) ? 0x7c00u : half; // 2^16 and infinity
    half = magnitude > 0x7f800000u ? nan : half;
    return (uint16_t)(half | ((bits >> 16) & 0x8000u));
}

static inline float half_bf16_to_f32(uint16_t half)
{
    return half_float_of((uint32_t)half << 16);
}

static inline uint16_t half_f32_to_bf16(float value)
{
    uint32_t bits = half_bits_of(value), high = bits >> 16;
    uint32_t nan = (high & 0x7fu) != 0 ? high : high | 0x40u;
    uint32_t rounded = (bits + 0x7fffu + (high & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

#endif
