// One leaf function per type of the rows: a loop over one type is a loop of vectors.
#include "model/attention/attention_pack.h"

#include "base/simd.h"
#include "model/kernels/half.h"

#include <string.h>

HOT static void round_rows(uint16_t *restrict packed, int ld, const float *restrict rows,
                           int64_t row, int n, int width)
{
    for (int i = 0; i < n; i++)
        for (int e = 0; e < width; e++)
            packed[(int64_t)i * ld + e] = half_f32_to_bf16(rows[i * row + e]);
}

void attention_pack_rows(uint16_t *packed, int ld, Rows rows, int n, int width, int end)
{
    if (rows.dtype == DTYPE_F32)
        round_rows(packed, ld, rows.data, rows.ld, n, width);
    for (int i = 0; i < n; i++) {
        uint16_t *to = packed + (int64_t)i * ld;
        if (rows.dtype == DTYPE_BF16)
            memcpy(to, (const uint16_t *)rows.data + (int64_t)i * rows.ld,
                   (size_t)width * sizeof *to);
        if (end > width)
            memset(to + width, 0, (size_t)(end - width) * sizeof *to);
    }
}

HOT static void scale_rows_f32(float *restrict rows, int64_t row, const float *restrict packed,
                               int ld, int n, int width, float scale)
{
    for (int i = 0; i < n; i++)
        for (int e = 0; e < width; e++)
            rows[i * row + e] = scale * packed[(int64_t)i * ld + e];
}

HOT static void scale_rows_bf16(uint16_t *restrict rows, int64_t row, const float *restrict packed,
                                int ld, int n, int width, float scale)
{
    for (int i = 0; i < n; i++)
        for (int e = 0; e < width; e++)
            rows[i * row + e] = half_f32_to_bf16(scale * packed[(int64_t)i * ld + e]);
}

void attention_unpack_rows(Rows rows, const float *packed, int ld, int n, int width, float scale)
{
    if (rows.dtype == DTYPE_F32)
        scale_rows_f32(rows.data, rows.ld, packed, ld, n, width, scale);
    else
        scale_rows_bf16(rows.data, rows.ld, packed, ld, n, width, scale);
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
