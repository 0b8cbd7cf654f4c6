// The products of tile_bf16.h for one instruction set. Private to model/kernels.
#ifndef MHA2MLA_MODEL_KERNELS_TILE_BF16_KERNEL_H
#define MHA2MLA_MODEL_KERNELS_TILE_BF16_KERNEL_H

#include "model/kernels/tile_bf16.h"

typedef struct TileBf16Operands {
    float *c;
    const uint16_t *a, *b;
    int ldc, lda, k; // k: a multiple of TILE_BF16_STEP
    int64_t panel_step;
    bool add;
    const uint16_t *ahead; // rows, lda apart, of the a of a product that comes next
    int ahead_rows;
} TileBf16Operands;

typedef struct TileBf16Kernel {
    void (*start)(void);
    void (*end)(void);
    void (*multiply)(const TileBf16Operands *operands, int m, int n);
    void (*round)(uint16_t *to, const float *from, int count);
} TileBf16Kernel;

extern const TileBf16Kernel tile_bf16_plain, tile_bf16_avx512, tile_bf16_amx;

// That of bf16_kernel().
const TileBf16Kernel *tile_bf16_kernel(void);

// For kernels that need no start.
void tile_bf16_nothing(void);

// By AVX512-BF16, which takes denormals for zero.
void tile_bf16_round_avx512(uint16_t *to, const float *from, int count);

#endif
