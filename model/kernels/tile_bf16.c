#include "model/kernels/tile_bf16.h"

#include "base/simd.h"
#include "model/kernels/half.h"

#include <string.h>

enum { COLUMNS = TILE_BF16_COLUMNS, HEIGHT = 4 };

// ---- products ----------------------------------------------------------------------------------

void tile_bf16_start(void)
{
}

void tile_bf16_end(void)
{
}

// HEIGHT or 1 rows of one panel's sums, in the order of k.
__attribute__((always_inline)) static inline void panel_sums(float sums[][COLUMNS],
                                                             const uint16_t *a, int lda,
                                                             const uint32_t *restrict pairs, int k,
                                                             const int rows)
{
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < COLUMNS; j++)
            sums[r][j] = 0;
    for (int p = 0; p < k; p += 2, pairs += COLUMNS)
        for (int r = 0; r < rows; r++) {
            const float even = half_bf16_to_f32(a[(int64_t)r * lda + p]),
                        odd = half_bf16_to_f32(a[(int64_t)r * lda + p + 1]);
            for (int j = 0; j < COLUMNS; j++)
                sums[r][j] += even * half_float_of(pairs[j] << 16);
            for (int j = 0; j < COLUMNS; j++)
                sums[r][j] += odd * half_float_of(pairs[j] & 0xffff0000u);
        }
}

// Columns [0, n) of one panel.
HOT static void multiply_panel(float *c, int ldc, const uint16_t *a, int lda, const uint16_t *panel,
                               int m, int n, int k, bool add)
{
    float sums[HEIGHT][COLUMNS];
    const uint32_t *pairs = (const uint32_t *)(const void *)panel;
    for (int i = 0; i < m; i += HEIGHT) {
        const int rows = min_int(HEIGHT, m - i);
        if (rows == HEIGHT)
            panel_sums(sums, a + (int64_t)i * lda, lda, pairs, k, HEIGHT);
        else
            for (int r = 0; r < rows; r++)
                panel_sums(sums + r, a + (int64_t)(i + r) * lda, lda, pairs, k, 1);
        for (int r = 0; r < rows; r++) {
            float *to = c + (int64_t)(i + r) * ldc;
            for (int j = 0; j < n; j++)
                to[j] = add ? to[j] + sums[r][j] : sums[r][j];
        }
    }
}

void tile_bf16_multiply(float *c, int ldc, const uint16_t *a, int lda, const uint16_t *b,
                        int64_t panel_step, int m, int n, int k, bool add)
{
    for (int j = 0; j < n; j += COLUMNS, b += panel_step)
        multiply_panel(c + j, ldc, a, lda, b, m, min_int(COLUMNS, n - j), tile_bf16_padded(k), add);
}

// ---- packing -----------------------------------------------------------------------------------

// `count` numbers of a row as bfloat16.
static void narrow(uint16_t *to, Rows from, int64_t row, int64_t column, int count)
{
    const Rows at = rows_at(from, row, column);
    if (at.dtype == DTYPE_BF16)
        memcpy(to, at.data, (size_t)count * sizeof *to);
    else
        dtype_narrow(to, DTYPE_BF16, at.data, count);
}

// Up to 16 columns of a pair of rows; zeros where there is no second row or no column.
static void pack_pair(uint16_t *to, Rows b, int row, int k, int column, int n)
{
    uint16_t pair[2][COLUMNS] = {{0}};
    for (int r = 0; r < 2; r++)
        if (row + r < k)
            narrow(pair[r], b, row + r, column, n);
    for (int j = 0; j < COLUMNS; j++) {
        to[2 * j] = pair[0][j];
        to[2 * j + 1] = pair[1][j];
    }
}

void tile_bf16_pack_rows(uint16_t *panels, int64_t panel_step, Rows b, int k, int n)
{
    for (int j = 0; j < n; j += COLUMNS, panels += panel_step)
        for (int p = 0; p < tile_bf16_padded(k); p += 2)
            pack_pair(panels + (int64_t)p * COLUMNS, b, p, k, j, min_int(COLUMNS, n - j));
}

void tile_bf16_pack_columns(uint16_t *panels, int64_t panel_step, Rows b, int n, int k)
{
    for (int j = 0; j < round_up(n, COLUMNS); j++) {
        uint16_t *to = panels + j / COLUMNS * panel_step + 2 * (j % COLUMNS);
        for (int p = 0; p < tile_bf16_padded(k); p += TILE_BF16_STEP) {
            uint16_t row[TILE_BF16_STEP] = {0};
            if (j < n && p < k)
                narrow(row, b, j, p, min_int(TILE_BF16_STEP, k - p));
            for (int q = 0; q < TILE_BF16_STEP; q++)
                to[(p + q) / 2 * 2 * COLUMNS + q % 2] = row[q];
        }
    }
}

void tile_bf16_copy_rows(uint16_t *to, int ld, Rows a, int m, int k)
{
    for (int i = 0; i < m; i++) {
        uint16_t *row = to + (int64_t)i * ld;
        narrow(row, a, i, 0, k);
        memset(row + k, 0, (size_t)(tile_bf16_padded(k) - k) * sizeof *row);
    }
}

void tile_bf16_transpose(uint16_t *to, int ld, Rows a, int k, int m)
{
    enum { BLOCK = 64 };
    uint16_t row[BLOCK];
    for (int p = 0; p < tile_bf16_padded(k); p++)
        for (int i = 0; i < m; i += BLOCK) {
            const int count = min_int(BLOCK, m - i);
            memset(row, 0, sizeof row);
            if (p < k)
                narrow(row, a, p, i, count);
            for (int r = 0; r < count; r++)
                to[(int64_t)(i + r) * ld + p] = row[r];
        }
}
