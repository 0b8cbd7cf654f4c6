// A block of 8 rows x 3 panels of sums stays in registers while k runs: a pair of numbers of a row
// of a is spread over a vector and multiplied with 16 pairs of a panel. Each element is a chain
// over the pairs of k.
#include "model/kernels/tile_bf16_kernel.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET         __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define ALWAYS_INLINE  __attribute__((always_inline)) static inline
#define UNROLLED(loop) _Pragma("GCC unroll 32") loop

enum { COLUMNS = TILE_BF16_COLUMNS, HEIGHT = 8, PANELS = 3 };

// The first n of a panel's columns.
ALWAYS_INLINE __mmask16 mask_of(int n)
{
    return (__mmask16)(n >= COLUMNS ? 0xffffu : (1u << n) - 1);
}

// `rows` rows from row i on and `panels` panels from column j on, both constants; n columns.
TARGET ALWAYS_INLINE void block(const TileBf16Operands *o, int i, int j, int n, const int rows,
                                const int panels)
{
    __m512 sum[HEIGHT][PANELS];
    const uint16_t *a = o->a + (int64_t)i * o->lda;
    const uint16_t *b = o->b + j / COLUMNS * o->panel_step;
    const int64_t lda = o->lda;
    float *c = o->c + (int64_t)i * o->ldc + j;
    __mmask16 columns[PANELS];
    UNROLLED(for (int v = 0; v < panels; v++))
    columns[v] = mask_of(n - v * COLUMNS);
    UNROLLED(for (int r = 0; r < rows; r++))
    UNROLLED(for (int v = 0; v < panels; v++))
    sum[r][v] = o->add ? _mm512_maskz_loadu_ps(columns[v], c + (int64_t)r * o->ldc + v * COLUMNS)
                       : _mm512_setzero_ps();
    for (int p = 0; p < o->k; p += 2, a += 2, b += 2 * COLUMNS) {
        __m512bh right[PANELS];
        UNROLLED(for (int v = 0; v < panels; v++))
        right[v] = (__m512bh)_mm512_load_si512(b + v * o->panel_step);
        UNROLLED(for (int r = 0; r < rows; r++))
        {
            int pair;
            __builtin_memcpy(&pair, a + r * lda, sizeof pair);
            const __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
            UNROLLED(for (int v = 0; v < panels; v++))
            sum[r][v] = _mm512_dpbf16_ps(sum[r][v], left, right[v]);
        }
    }
    UNROLLED(for (int r = 0; r < rows; r++))
    UNROLLED(for (int v = 0; v < panels; v++))
    _mm512_mask_storeu_ps(c + (int64_t)r * o->ldc + v * COLUMNS, columns[v], sum[r][v]);
}

// m rows of a constant number of panels.
TARGET ALWAYS_INLINE void strip(const TileBf16Operands *o, int m, int j, int n, const int panels)
{
    int i = 0;
    for (; i + HEIGHT <= m; i += HEIGHT)
        block(o, i, j, n, HEIGHT, panels);
    for (; i + 2 <= m; i += 2)
        block(o, i, j, n, 2, panels);
    if (i < m)
        block(o, i, j, n, 1, panels);
}

TARGET static void multiply(const TileBf16Operands *o, int m, int n)
{
    int j = 0;
    for (; n - j > 2 * COLUMNS; j += PANELS * COLUMNS)
        strip(o, m, j, min_int(n - j, PANELS * COLUMNS), PANELS);
    if (n - j > COLUMNS)
        strip(o, m, j, n - j, 2);
    else if (n > j)
        strip(o, m, j, n - j, 1);
}

TARGET void tile_bf16_round_avx512(uint16_t *to, const float *from, int count)
{
    int i = 0;
    for (; i + 32 <= count; i += 32)
        _mm512_storeu_si512(to + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16),
                                                                 _mm512_loadu_ps(from + i)));
    for (; i < count; i += 16) {
        const int n = count - i;
        const __mmask16 columns = (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1);
        _mm256_mask_storeu_epi16(
            to + i, columns, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(columns, from + i)));
    }
}

const TileBf16Kernel tile_bf16_avx512 = {tile_bf16_nothing, tile_bf16_nothing, multiply,
                                         tile_bf16_round_avx512};

#else

const TileBf16Kernel tile_bf16_avx512 = {0};

#endif
