// One leaf function per type of the rows: a loop over one type is a loop of vectors.
#include "model/attention/attention_pack.h"

#include "base/simd.h"
#include "model/kernels/compute.h"
#include "model/kernels/half.h"

#include <string.h>

// ---- any CPU -----------------------------------------------------------------------------------

HOT static void pack_floats(uint16_t *restrict packed, int ld, const float *restrict rows,
                            int64_t row, int n, int width)
{
    for (int i = 0; i < n; i++)
        for (int e = 0; e < width; e++)
            packed[(int64_t)i * ld + e] = half_f32_to_bf16(rows[i * row + e]);
}

static void pack_plain(uint16_t *packed, int ld, Rows rows, int n, int width, int end)
{
    if (rows.dtype == DTYPE_F32)
        pack_floats(packed, ld, rows.data, rows.ld, n, width);
    for (int i = 0; i < n; i++) {
        uint16_t *to = packed + (int64_t)i * ld;
        if (rows.dtype == DTYPE_BF16)
            memcpy(to, (const uint16_t *)rows.data + (int64_t)i * rows.ld,
                   (size_t)width * sizeof *to);
        memset(to + width, 0, (size_t)(end - width) * sizeof *to);
    }
}

HOT static void unpack_floats(float *restrict rows, int64_t row, const float *restrict packed,
                              int ld, int n, int width, float scale)
{
    for (int i = 0; i < n; i++)
        for (int e = 0; e < width; e++)
            rows[i * row + e] = scale * packed[(int64_t)i * ld + e];
}

HOT static void unpack_halves_plain(uint16_t *restrict rows, int64_t row,
                                    const float *restrict packed, int ld, int n, int width,
                                    float scale)
{
    for (int i = 0; i < n; i++)
        for (int e = 0; e < width; e++)
            rows[i * row + e] = half_f32_to_bf16(scale * packed[(int64_t)i * ld + e]);
}

// ---- AVX-512 -----------------------------------------------------------------------------------

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET        __attribute__((target("avx512f,avx512bw,avx512bf16")))
#define ALWAYS_INLINE __attribute__((always_inline)) static inline

enum {
    LANES = 32, // numbers of a vector of halves
    // Rows to fetch ahead, also those of the tile that follows: they lie too far apart for the
    // hardware's prefetcher.
    ROWS_AHEAD = 12
};

// The first `count` of a vector's.
ALWAYS_INLINE __mmask32 first_lanes(int count)
{
    return count >= LANES ? 0xffffffffu : count <= 0 ? 0u : (1u << count) - 1;
}

// Numbers e to e + 32 of a row of floats, those in the mask.
TARGET ALWAYS_INLINE __m512i narrow_lanes(const float *row, __mmask32 lanes, __m512 scale)
{
    const __m512 low = _mm512_maskz_loadu_ps((__mmask16)(lanes & 0xffffu), row),
                 high = _mm512_maskz_loadu_ps((__mmask16)(lanes >> 16), row + LANES / 2);
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(high, scale), _mm512_mul_ps(low, scale));
}

TARGET static void pack_avx512(uint16_t *packed, int ld, Rows rows, int n, int width, int end)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    for (int i = 0; i < n; i++, packed += ld)
        for (int e = 0; e < end; e += LANES) {
            const __mmask32 lanes = first_lanes(width - e);
            const int64_t at = (int64_t)i * rows.ld + e, ahead = at + (int64_t)ROWS_AHEAD * rows.ld;
            _mm_prefetch((const char *)rows.data + ahead * dtype_size_bytes(rows.dtype),
                         _MM_HINT_T0);
            const __m512i numbers =
                rows.dtype == DTYPE_F32
                    ? narrow_lanes((const float *)rows.data + at, lanes, one)
                    : _mm512_maskz_loadu_epi16(lanes, (const uint16_t *)rows.data + at);
            _mm512_mask_storeu_epi16(packed + e, first_lanes(end - e), numbers);
        }
}

TARGET static void unpack_halves_avx512(uint16_t *rows, int64_t row, const float *packed, int ld,
                                        int n, int width, float scale)
{
    const __m512 scales = _mm512_set1_ps(scale);
    for (int i = 0; i < n; i++, rows += row, packed += ld)
        for (int e = 0; e < width; e += LANES) {
            const __mmask32 lanes = first_lanes(width - e);
            __builtin_prefetch(rows + ROWS_AHEAD * row + e, 1);
            _mm512_mask_storeu_epi16(rows + e, lanes, narrow_lanes(packed + e, lanes, scales));
        }
}

#endif

// ---- the CPU decides ---------------------------------------------------------------------------

void attention_pack_rows(uint16_t *packed, int ld, Rows rows, int n, int width, int end)
{
#if defined(__x86_64__)
    if (bf16_kernel() != BF16_EMULATED) {
        pack_avx512(packed, ld, rows, n, width, end);
        return;
    }
#endif
    pack_plain(packed, ld, rows, n, width, end);
}

void attention_unpack_rows(Rows rows, const float *packed, int ld, int n, int width, float scale)
{
    if (rows.dtype == DTYPE_F32) {
        unpack_floats(rows.data, rows.ld, packed, ld, n, width, scale);
        return;
    }
#if defined(__x86_64__)
    if (bf16_kernel() != BF16_EMULATED) {
        unpack_halves_avx512(rows.data, rows.ld, packed, ld, n, width, scale);
        return;
    }
#endif
    unpack_halves_plain(rows.data, rows.ld, packed, ld, n, width, scale);
}

enum { BLOCK = 16 };

// BLOCK columns of a tile, or fewer, as rows: small enough for the first cache.
HOT static void transpose_block(float *restrict rows, const float *restrict packed, int ld, int n,
                                int width)
{
    for (int i = 0; i < n; i++)
        for (int e = 0; e < width; e++)
            rows[(int64_t)i * width + e] = packed[(int64_t)e * ld + i];
}

void attention_unpack_columns(Rows rows, const float *packed, int ld, int n, int width, float scale)
{
    float block[BLOCK * BLOCK];
    for (int i = 0; i < n; i += BLOCK)
        for (int e = 0; e < width; e += BLOCK) {
            const int n_rows = n - i < BLOCK ? n - i : BLOCK,
                      n_columns = width - e < BLOCK ? width - e : BLOCK;
            transpose_block(block, packed + (int64_t)e * ld + i, ld, n_rows, n_columns);
            attention_unpack_rows(rows_at(rows, i, e), block, n_columns, n_rows, n_columns, scale);
        }
}

HOT static float dot_f32(const float *restrict a, const uint16_t *restrict b, int count)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; i++)
        sum += a[i] * half_bf16_to_f32(b[i]);
    return sum;
}

HOT static float dot_bf16(const uint16_t *restrict a, const uint16_t *restrict b, int count)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; i++)
        sum += half_bf16_to_f32(a[i]) * half_bf16_to_f32(b[i]);
    return sum;
}

void attention_pack_dots(float *dots, Rows rows, const uint16_t *packed, int ld, int n, int width)
{
    for (int i = 0; i < n; i++) {
        const Rows row = rows_at(rows, i, 0);
        const uint16_t *with = packed + (int64_t)i * ld;
        dots[i] = rows.dtype == DTYPE_F32 ? dot_f32(row.data, with, width)
                                          : dot_bf16(row.data, with, width);
    }
}
