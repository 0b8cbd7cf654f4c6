// Transposing while operands are packed.
//
//     transpose8(to + p * width, width, from + p, step); // an 8 x 8 block
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

#undef TRANSPOSE_SHUFFLE

#endif
