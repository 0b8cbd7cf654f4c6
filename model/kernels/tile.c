// A block of c stays in registers while k runs: as many rows and vectors as there are registers
// beside the operands. The vector's width is a type of the compiler and must be known before the
// target is, so each target's block is an instance of one macro. The multiply-add is inline
// assembly: left to choose among its three encodings, gcc 12 moves and spills the sums, at a third
// of the speed.
#include "model/kernels/tile.h"

#include <stddef.h>

typedef float Vector16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef float Vector8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float Vector4 __attribute__((vector_size(16), aligned(4), may_alias));

#define ALWAYS_INLINE  __attribute__((always_inline)) static inline
#define UNROLLED(loop) _Pragma("GCC unroll 32") loop

#define FMA_X86(sum, x, y)     __asm__("vfmadd231ps %1, %2, %0" : "+v"(sum) : "v"(x), "v"(y))
#define SPREAD_X86(to, from)   __asm__("vbroadcastss %1, %0" : "=v"(to) : "m"(from))
#define FMA_PLAIN(sum, x, y)   ((sum) += (x) * (y))
#define SPREAD_PLAIN(to, from) ((to) = (Vector4){from, from, from, from})

// NAME_sums: a block whose size is a constant. NAME_strip: any number of rows, a constant number of
// vectors, in blocks `height` high. NAME_strips: HEIGHT_n is the height of blocks of n vectors.
// NAME_block: TileKernel.block.
#define DEFINE_TILE(NAME, TARGET, VECTOR, HEIGHT_1, HEIGHT_2, HEIGHT_3, HEIGHT_4, FMA, SPREAD)     \
    enum { NAME##_LANES = sizeof(VECTOR) / sizeof(float) };                                        \
    TARGET ALWAYS_INLINE void NAME##_sums(const TileOperands *operands, int i, const int rows,     \
                                          const int vectors)                                       \
    {                                                                                              \
        const float *b = operands->b, *a[(HEIGHT_1 + 2) / 3];                                      \
        const int64_t row_step = operands->row_step, k_step = operands->k_step,                    \
                      ldb = operands->ldb;                                                         \
        UNROLLED(for (int r = 0; r < rows; r += 3)) a[r / 3] = operands->a + (i + r) * row_step;   \
        VECTOR sum[HEIGHT_1][4];                                                                   \
        UNROLLED(for (int r = 0; r < rows; r++))                                                   \
        {                                                                                          \
            const float *c = operands->c + (int64_t)(i + r) * operands->ldc;                       \
            UNROLLED(for (int v = 0; v < vectors; v++))                                            \
            {                                                                                      \
                sum[r][v] = (VECTOR){0};                                                           \
                __builtin_prefetch(c + v * NAME##_LANES, 1);                                       \
            }                                                                                      \
        }                                                                                          \
        _Pragma("GCC unroll 4") for (int p = 0; p < operands->k; p++)                              \
        {                                                                                          \
            VECTOR right[4];                                                                       \
            UNROLLED(for (int v = 0; v < vectors; v++))                                            \
            right[v] = *(const VECTOR *)(b + v * NAME##_LANES);                                    \
            UNROLLED(for (int r = 0; r < rows; r++))                                               \
            {                                                                                      \
                VECTOR left;                                                                       \
                SPREAD(left, a[r / 3][r % 3 * row_step]);                                          \
                UNROLLED(for (int v = 0; v < vectors; v++)) FMA(sum[r][v], left, right[v]);        \
            }                                                                                      \
            UNROLLED(for (int r = 0; r < rows; r += 3)) a[r / 3] += k_step;                        \
            b += ldb;                                                                              \
        }                                                                                          \
        UNROLLED(for (int r = 0; r < rows; r++))                                                   \
        {                                                                                          \
            float *c = operands->c + (int64_t)(i + r) * operands->ldc;                             \
            UNROLLED(for (int v = 0; v < vectors; v++))                                            \
            {                                                                                      \
                VECTOR *to = (VECTOR *)(c + v * NAME##_LANES);                                     \
                if (operands->add)                                                                 \
                    sum[r][v] += *to;                                                              \
                *to = sum[r][v];                                                                   \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    TARGET ALWAYS_INLINE void NAME##_strip(const TileOperands *operands, int rows,                 \
                                           const int vectors, const int height)                    \
    {                                                                                              \
        int i = 0;                                                                                 \
        for (; i + height <= rows; i += height)                                                    \
            NAME##_sums(operands, i, height, vectors);                                             \
        if (height > 8) /* 8 and 6: the slivers of gemm.c */                                       \
            for (; i + 8 <= rows; i += 8)                                                          \
                NAME##_sums(operands, i, 8, vectors);                                              \
        if (height > 6)                                                                            \
            for (; i + 6 <= rows; i += 6)                                                          \
                NAME##_sums(operands, i, 6, vectors);                                              \
        if (height > 4)                                                                            \
            for (; i + 4 <= rows; i += 4)                                                          \
                NAME##_sums(operands, i, 4, vectors);                                              \
        for (; i + 2 <= rows; i += 2)                                                              \
            NAME##_sums(operands, i, 2, vectors);                                                  \
        for (; i < rows; i++)                                                                      \
            NAME##_sums(operands, i, 1, vectors);                                                  \
    }                                                                                              \
    TARGET ALWAYS_INLINE void NAME##_strips(const TileOperands *operands, int rows, int columns)   \
    {                                                                                              \
        if (columns == NAME##_LANES)                                                               \
            NAME##_strip(operands, rows, 1, HEIGHT_1);                                             \
        else if (columns == 2 * NAME##_LANES)                                                      \
            NAME##_strip(operands, rows, 2, HEIGHT_2);                                             \
        else if (HEIGHT_3 > 0 && columns == 3 * NAME##_LANES)                                      \
            NAME##_strip(operands, rows, 3, HEIGHT_3);                                             \
        else if (HEIGHT_4 > 0)                                                                     \
            NAME##_strip(operands, rows, 4, HEIGHT_4);                                             \
    }                                                                                              \
    TARGET static void NAME##_block(const TileOperands *shared, int rows, int columns)             \
    {                                                                                              \
        TileOperands operands = *shared;                                                           \
        if (operands.row_step == 1) { /* a constant: shorter addressing */                         \
            operands.row_step = 1;                                                                 \
            NAME##_strips(&operands, rows, columns);                                               \
        } else {                                                                                   \
            operands.k_step = 1;                                                                   \
            NAME##_strips(&operands, rows, columns);                                               \
        }                                                                                          \
    }

#if defined(__x86_64__)
DEFINE_TILE(avx512, __attribute__((target("avx512f"))), Vector16, 16, 12, 8, 6, FMA_X86, SPREAD_X86)
DEFINE_TILE(avx2, __attribute__((target("avx2,fma"))), Vector8, 12, 6, 0, 0, FMA_X86, SPREAD_X86)
#endif
DEFINE_TILE(plain, , Vector4, 6, 3, 0, 0, FMA_PLAIN, SPREAD_PLAIN)

// Heights fill the registers: AVX-512 has 32, so 8 rows x 3 vectors leave 8 for operands; AVX2 has
// 16, so 6 x 2 leave 4. For height[v] see tile.h.
static const TileKernel kernels[N_TILE_TARGETS] = {
    [TILE_PLAIN] = {"plain", 4, 8, {0, 6, 3}, plain_block},
#if defined(__x86_64__)
    [TILE_AVX2] = {"AVX2", 8, 16, {0, 12, 6}, avx2_block},
    [TILE_AVX512] = {"AVX-512", 16, 64, {0, 16, 12, 8, 6}, avx512_block},
#endif
};

// Asked at run time, so that one binary serves all machines; gcc reads CPUID once per process.
static bool machine_has(TileTarget target)
{
#if defined(__x86_64__)
    if (target == TILE_AVX512)
        return __builtin_cpu_supports("avx512f");
    if (target == TILE_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return target == TILE_PLAIN;
}

const TileKernel *tile_kernel(TileTarget target)
{
    return machine_has(target) ? &kernels[target] : NULL;
}

TileTarget tile_target(void)
{
    TileTarget target = N_TILE_TARGETS - 1;
    while (!machine_has(target))
        target--;
    return target;
}

// Column by column of blocks: the part of b that one reads stays in the first cache.
static void multiply(const TileKernel *kernel, const TileOperands *operands, int m, int n)
{
    const int padded = tile_padded(n);
    TileOperands block = *operands;
    for (int j = 0; j < padded; j += kernel->columns) {
        block.b = operands->b + j;
        block.c = operands->c + j;
        kernel->block(&block, m, min_int(kernel->columns, padded - j));
    }
}

void tile_multiply(float *c, int ldc, const float *a, int lda, const float *b, int ldb, int m,
                   int n, int k, bool add)
{
    multiply(tile_kernel(tile_target()), &(TileOperands){c, a, b, ldc, ldb, k, lda, 1, add}, m, n);
}

void tile_multiply_transposed(float *c, int ldc, const float *a, int lda, const float *b, int ldb,
                              int m, int n, int k, bool add)
{
    multiply(tile_kernel(tile_target()), &(TileOperands){c, a, b, ldc, ldb, k, 1, lda, add}, m, n);
}
