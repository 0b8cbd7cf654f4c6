// A block of c stays in registers while k runs: ROWS rows of two vectors, as many as the registers
// hold beside the operands. What is wide is a type of the compiler and must be fixed before the
// target is, so each target's block is an instance of one macro.
#include "model/tile.h"

#include <stdint.h>

typedef float Vector16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef float Vector8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float Vector4 __attribute__((vector_size(16), aligned(4), may_alias));

typedef struct Operands {
    float *c;
    const float *a, *b;
    int ldc, ldb, k;
    int64_t row_step, k_step; // of a, in floats
    bool add;
} Operands;

#define ALWAYS_INLINE __attribute__((always_inline)) static inline

// NAME_block: `rows` rows and two vectors of c. NAME_strip: all m rows, blocks of ROWS while they
// last. NAME_multiply: all columns; the block of b that a strip reads stays in the first cache.
#define DEFINE_TILE(NAME, TARGET, VECTOR, ROWS)                                                    \
    TARGET ALWAYS_INLINE void NAME##_block(const Operands *x, int i, int j, const int rows)        \
    {                                                                                              \
        enum { LANES = sizeof(VECTOR) / sizeof(float) };                                           \
        const float *b = x->b + j, *a[(ROWS + 2) / 3];                                             \
        const int64_t row_step = x->row_step, k_step = x->k_step;                                  \
        for (int r = 0; r < rows; r += 3)                                                          \
            a[r / 3] = x->a + (i + r) * x->row_step;                                               \
        VECTOR sum[ROWS][2];                                                                       \
        for (int r = 0; r < rows; r++)                                                             \
            sum[r][0] = sum[r][1] = (VECTOR){0};                                                   \
        for (int p = 0; p < x->k; p++) {                                                           \
            VECTOR left = *(const VECTOR *)b, right = *(const VECTOR *)(b + LANES);                \
            _Pragma("GCC unroll 16") for (int r = 0; r < rows; r++)                                \
            {                                                                                      \
                sum[r][0] += a[r / 3][r % 3 * row_step] * left;                                    \
                sum[r][1] += a[r / 3][r % 3 * row_step] * right;                                   \
            }                                                                                      \
            for (int r = 0; r < rows; r += 3)                                                      \
                a[r / 3] += k_step;                                                                \
            b += x->ldb;                                                                           \
        }                                                                                          \
        _Pragma("GCC unroll 16") for (int r = 0; r < rows; r++)                                    \
        {                                                                                          \
            float *c = x->c + (int64_t)(i + r) * x->ldc + j;                                       \
            VECTOR *left = (VECTOR *)c, *right = (VECTOR *)(c + LANES);                            \
            if (x->add) {                                                                          \
                sum[r][0] += *left;                                                                \
                sum[r][1] += *right;                                                               \
            }                                                                                      \
            *left = sum[r][0];                                                                     \
            *right = sum[r][1];                                                                    \
        }                                                                                          \
    }                                                                                              \
    TARGET ALWAYS_INLINE void NAME##_strip(const Operands *x, int j, int m)                        \
    {                                                                                              \
        int i = 0;                                                                                 \
        for (; i + ROWS <= m; i += ROWS)                                                           \
            NAME##_block(x, i, j, ROWS);                                                           \
        for (; i + 3 <= m; i += 3)                                                                 \
            NAME##_block(x, i, j, 3);                                                              \
        for (; i < m; i++)                                                                         \
            NAME##_block(x, i, j, 1);                                                              \
    }                                                                                              \
    TARGET static void NAME##_multiply(const Operands *operands, int m, int n)                     \
    {                                                                                              \
        enum { COLUMNS = 2 * sizeof(VECTOR) / sizeof(float) };                                     \
        Operands x = *operands;                                                                    \
        if (x.row_step == 1) { /* a constant makes shorter addresses */                            \
            x.row_step = 1;                                                                        \
            for (int j = 0; j < n; j += COLUMNS)                                                   \
                NAME##_strip(&x, j, m);                                                            \
        } else {                                                                                   \
            x.k_step = 1;                                                                          \
            for (int j = 0; j < n; j += COLUMNS)                                                   \
                NAME##_strip(&x, j, m);                                                            \
        }                                                                                          \
    }

#if defined(__x86_64__)
DEFINE_TILE(avx512, __attribute__((target("avx512f"))), Vector16, 12)
DEFINE_TILE(avx2, __attribute__((target("avx2,fma"))), Vector8, 6)
#endif
DEFINE_TILE(plain, , Vector4, 3)

static void multiply(const Operands *x, int m, int n)
{
    int padded = tile_padded(n);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        avx512_multiply(x, m, padded);
        return;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        avx2_multiply(x, m, padded);
        return;
    }
#endif
    plain_multiply(x, m, padded);
}

void tile_multiply(float *c, int ldc, const float *a, int lda, const float *b, int ldb, int m,
                   int n, int k, bool add)
{
    multiply(&(Operands){c, a, b, ldc, ldb, k, lda, 1, add}, m, n);
}

void tile_multiply_transposed(float *c, int ldc, const float *a, int lda, const float *b, int ldb,
                              int m, int n, int k, bool add)
{
    multiply(&(Operands){c, a, b, ldc, ldb, k, 1, lda, add}, m, n);
}
