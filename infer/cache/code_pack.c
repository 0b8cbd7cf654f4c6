#include "infer/cache/code_pack.h"

#include "base/simd.h"

#include <string.h>

// The loops run over the bytes of a part, so that each of them vectorizes.

HOT static void pack_nibbles(uint8_t *restrict packed, const uint8_t *restrict codes, int64_t n)
{
    int64_t part = n / 2;
    for (int64_t i = 0; i < part; i++)
        packed[i] = (uint8_t)(codes[i] | (codes[i + part] << 4));
}

HOT static void unpack_nibbles(uint8_t *restrict codes, const uint8_t *restrict packed, int64_t n)
{
    int64_t part = n / 2;
    for (int64_t i = 0; i < part; i++) {
        codes[i] = packed[i] & 0xf;
        codes[i + part] = packed[i] >> 4;
    }
}

HOT static void pack_pairs(uint8_t *restrict packed, const uint8_t *restrict codes, int64_t n)
{
    int64_t part = n / 4;
    for (int64_t i = 0; i < part; i++)
        packed[i] = (uint8_t)((codes[i] & 3) | ((codes[i + part] & 3) << 2) |
                              ((codes[i + 2 * part] & 3) << 4) | ((codes[i + 3 * part] & 3) << 6));
}

HOT static void unpack_pairs(uint8_t *restrict codes, const uint8_t *restrict packed, int64_t n)
{
    int64_t part = n / 4;
    for (int64_t i = 0; i < part; i++) {
        codes[i] = packed[i] & 3;
        codes[i + part] = (packed[i] >> 2) & 3;
        codes[i + 2 * part] = (packed[i] >> 4) & 3;
        codes[i + 3 * part] = packed[i] >> 6;
    }
}

static void pack_high_bits(uint8_t *restrict packed, const uint8_t *restrict codes, int64_t n)
{
    for (int64_t i = 0; i < n / 8; i++) {
        unsigned byte = 0;
        for (int bit = 0; bit < 8; bit++)
            byte |= (unsigned)(codes[8 * i + bit] >> 2) << bit;
        packed[i] = (uint8_t)byte;
    }
}

HOT static void unpack_high_bits(uint8_t *restrict codes, const uint8_t *restrict packed, int64_t n)
{
    for (int64_t i = 0; i < n / 8; i++)
        for (int bit = 0; bit < 8; bit++)
            codes[8 * i + bit] |= (uint8_t)(((packed[i] >> bit) & 1) << 2);
}

void code_pack(uint8_t *restrict packed, const uint8_t *restrict codes, int64_t n, int bits)
{
    if (bits == 8) {
        memcpy(packed, codes, (size_t)n);
    } else if (bits == 4) {
        pack_nibbles(packed, codes, n);
    } else {
        pack_pairs(packed, codes, n);
        if (bits == 3)
            pack_high_bits(packed + n / 4, codes, n);
    }
}

void code_unpack(uint8_t *restrict codes, const uint8_t *restrict packed, int64_t n, int bits)
{
    if (bits == 8) {
        memcpy(codes, packed, (size_t)n);
    } else if (bits == 4) {
        unpack_nibbles(codes, packed, n);
    } else {
        unpack_pairs(codes, packed, n);
        if (bits == 3)
            unpack_high_bits(codes, packed + n / 4, n);
    }
}
