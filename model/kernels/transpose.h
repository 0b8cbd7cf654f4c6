// Transposing while operands are packed.
//
//     transpose8(to + p * width, width, from + p, step); // an 8 x 8 block of floats
//     transpose16(to, to_step, from, step);              // 16 x 16 words
#ifndef MHA2MLA_MODEL_KERNELS_TRANSPOSE_H
#define MHA2MLA_MODEL_KERNELS_TRANSPOSE_H

#include <stdint.h>

// Unaligned, since rows may begin anywhere, and may_alias, since the memory holds floats.
typedef float TransposeVector __attribute__((vector_size(32), aligned(4), may_alias));

// to[p * width + i] = from[i * step + p] for an 8 x 8 block.
// Three rounds of shuffles as for a transpose with AVX; the compiler's vector type needs no
// intrinsics and compiles on any target. Bits stay as they are.
#define TRANSPOSE_SHUFFLE __builtin_shufflevector
__attribute__((always_inline)) static inline void transpose8(float *restrict to, int width,
                                                             const float *restrict from,
                                                             int64_t step)
{
    TransposeVector r[8], t[8], u[8];
    for (int i = 0; i < 8; i++)
        r[i] = *(const TransposeVector *)(from + i * step);
    for (int i = 0; i < 8; i += 2) {
        t[i] = TRANSPOSE_SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = TRANSPOSE_SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            u[i + 2 * j] = TRANSPOSE_SHUFFLE(t[i + j], t[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            u[i + 2 * j + 1] =
                TRANSPOSE_SHUFFLE(t[i + j], t[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        *(TransposeVector *)(to + i * width) =
            TRANSPOSE_SHUFFLE(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *(TransposeVector *)(to + (i + 4) * width) =
            TRANSPOSE_SHUFFLE(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

// Unaligned as TransposeVector.
typedef uint32_t TransposeQuad __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t TransposeOctet __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t TransposeWords __attribute__((vector_size(64), aligned(4), may_alias));

// to[p * to_step + i] = from[i * step + p] for a 16 x 16 block. Loads put rows q, q + 4, q + 8 and
// q + 12 side by side, so that two rounds within quarters of vectors are left: shuffles limit the
// speed, loads do not.
__attribute__((always_inline)) static inline void transpose16(uint32_t *restrict to,
                                                              int64_t to_step,
                                                              const uint32_t *restrict from,
                                                              int64_t step)
{
    for (int p = 0; p < 16; p += 4) {
        TransposeWords r[4], low[2], high[2];
        for (int q = 0; q < 4; q++) {
            TransposeQuad part[4];
            for (int i = 0; i < 4; i++)
                part[i] = *(const TransposeQuad *)(from + (q + 4 * i) * step + p);
            const TransposeOctet left = TRANSPOSE_SHUFFLE(part[0], part[1], 0, 1, 2, 3, 4, 5, 6, 7),
                                 right =
                                     TRANSPOSE_SHUFFLE(part[2], part[3], 0, 1, 2, 3, 4, 5, 6, 7);
            r[q] = TRANSPOSE_SHUFFLE(left, right, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
                                     15);
        }
        for (int q = 0; q < 2; q++) {
            low[q] = TRANSPOSE_SHUFFLE(r[2 * q], r[2 * q + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9,
                                       25, 12, 28, 13, 29);
            high[q] = TRANSPOSE_SHUFFLE(r[2 * q], r[2 * q + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26,
                                        11, 27, 14, 30, 15, 31);
        }
        for (int q = 0; q < 2; q++) {
            const TransposeWords *pair = q == 0 ? low : high;
            uint32_t *row = to + (p + 2 * q) * to_step;
            *(TransposeWords *)row = TRANSPOSE_SHUFFLE(pair[0], pair[1], 0, 1, 16, 17, 4, 5, 20, 21,
                                                       8, 9, 24, 25, 12, 13, 28, 29);
            *(TransposeWords *)(row + to_step) = TRANSPOSE_SHUFFLE(
                pair[0], pair[1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
        }
    }
}

#undef TRANSPOSE_SHUFFLE

#endif
