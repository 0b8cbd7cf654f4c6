// Operands as tile_bf16_multiply() wants them. Everything works on words of two numbers that are
// neighbours in k: rows of b give them by weaving two rows together, columns of b and rows of a
// have them side by side, and a transposed a needs both. Blocks of 16 x 16 words are transposed.
//
// One body serves float32 and bfloat16: `is_halves` is a constant where it is inlined.
#include "base/simd.h"
#include "model/kernels/half.h"
#include "model/kernels/tile_bf16.h"
#include "model/kernels/transpose.h"

#include <string.h>

#define ALWAYS_INLINE __attribute__((always_inline)) static inline

enum {
    SIDE = 16,  // words
    AHEAD = 16, // rows to prefetch: they lie too far apart for the hardware's prefetcher
};

ALWAYS_INLINE uint32_t half_at(const void *row, int64_t i, const bool is_halves)
{
    return is_halves ? ((const uint16_t *)row)[i] : half_f32_to_bf16(((const float *)row)[i]);
}

// n words of two rows; `odd` NULL: zeros.
ALWAYS_INLINE void weave(uint32_t *restrict words, const void *restrict even,
                         const void *restrict odd, int64_t first, int n, const bool is_halves)
{
    if (odd == NULL)
        for (int j = 0; j < n; j++)
            words[j] = half_at(even, first + j, is_halves);
    else
        for (int j = 0; j < n; j++)
            words[j] = half_at(even, first + j, is_halves) | half_at(odd, first + j, is_halves)
                                                                 << 16;
}

// `count` numbers of a row, side by side.
ALWAYS_INLINE void narrow(uint16_t *restrict to, const void *restrict from, int64_t first,
                          int count, const bool is_halves)
{
    for (int i = 0; i < count; i++)
        to[i] = (uint16_t)half_at(from, first + i, is_halves);
}

ALWAYS_INLINE const void *row_of(Rows rows, int64_t row, const bool is_halves)
{
    return (const char *)rows.data + row * rows.ld * (is_halves ? 2 : 4);
}

ALWAYS_INLINE void fetch(const void *row, int64_t first, int count, const bool is_halves)
{
    const int size = is_halves ? 2 : 4;
    for (int i = 0; i < count * size; i += 64)
        __builtin_prefetch((const char *)row + first * size + i);
}

// A block of words, its row r going to column r.
ALWAYS_INLINE void transpose_words(uint32_t *to, int64_t to_step, uint32_t words[SIDE][SIDE])
{
    for (int i = 0; i < SIDE; i += 8)
        for (int j = 0; j < SIDE; j += 8)
            transpose8((float *)(void *)(to + j * to_step + i), (int)to_step,
                       (const float *)(const void *)&words[i][j], SIDE);
}

// ---- rows -> panels ----------------------------------------------------------------------------

ALWAYS_INLINE void pack_rows(uint32_t *panels, int64_t panel_step, Rows b, int k, int n,
                             const bool is_halves)
{
    for (int p = 0; p < k; p += 2) {
        const void *even = row_of(b, p, is_halves),
                   *odd = p + 1 < k ? row_of(b, p + 1, is_halves) : NULL;
        uint32_t *to = panels + (int64_t)p / 2 * SIDE;
        int j = 0;
        fetch(row_of(b, p + AHEAD, is_halves), 0, n, is_halves);
        fetch(row_of(b, p + AHEAD + 1, is_halves), 0, n, is_halves);
        for (; j + SIDE <= n; j += SIDE, to += panel_step)
            weave(to, even, odd, j, SIDE, is_halves);
        if (j < n) {
            memset(to, 0, SIDE * sizeof *to);
            weave(to, even, odd, j, n - j, is_halves);
        }
    }
}

HOT static void pack_float_rows(uint32_t *panels, int64_t panel_step, Rows b, int k, int n)
{
    pack_rows(panels, panel_step, b, k, n, false);
}

HOT static void pack_half_rows(uint32_t *panels, int64_t panel_step, Rows b, int k, int n)
{
    pack_rows(panels, panel_step, b, k, n, true);
}

void tile_bf16_pack_rows(uint16_t *panels, int64_t panel_step, Rows b, int k, int n)
{
    uint32_t *words = (uint32_t *)(void *)panels;
    (b.dtype == DTYPE_BF16 ? pack_half_rows : pack_float_rows)(words, panel_step / 2, b, k, n);
    const int used = round_up(k, 2), left = tile_bf16_padded(k) - used;
    for (int j = 0; j < n; j += SIDE, panels += panel_step)
        memset(panels + (int64_t)used * SIDE, 0, (size_t)left * SIDE * sizeof *panels);
}

// ---- columns -> panels -------------------------------------------------------------------------

// One panel: n rows of k numbers.
ALWAYS_INLINE void pack_columns(uint32_t *panel, Rows b, int n, int k, const bool is_halves)
{
    uint32_t words[SIDE][SIDE];
    if (n < SIDE)
        memset(words, 0, sizeof words);
    for (int p = 0; p < k; p += 2 * SIDE, panel += SIDE * SIDE) {
        const int count = min_int(2 * SIDE, k - p);
        if (count < 2 * SIDE)
            memset(words, 0, sizeof words);
        for (int r = 0; r < n; r++) {
            const void *row = row_of(b, r, is_halves);
            fetch(row_of(b, r + SIDE, is_halves), p, 2 * SIDE, is_halves);
            if (count == 2 * SIDE)
                narrow((uint16_t *)(void *)words[r], row, p, 2 * SIDE, is_halves);
            else
                narrow((uint16_t *)(void *)words[r], row, p, count, is_halves);
        }
        transpose_words(panel, SIDE, words);
    }
}

HOT static void pack_float_columns(uint32_t *panel, Rows b, int n, int k)
{
    pack_columns(panel, b, n, k, false);
}

HOT static void pack_half_columns(uint32_t *panel, Rows b, int n, int k)
{
    pack_columns(panel, b, n, k, true);
}

void tile_bf16_pack_columns(uint16_t *panels, int64_t panel_step, Rows b, int n, int k)
{
    for (int j = 0; j < n; j += SIDE, panels += panel_step)
        (b.dtype == DTYPE_BF16 ? pack_half_columns : pack_float_columns)(
            (uint32_t *)(void *)panels, rows_at(b, j, 0), min_int(SIDE, n - j), k);
}

// ---- the left operand --------------------------------------------------------------------------

void tile_bf16_copy_rows(uint16_t *to, int ld, Rows a, int m, int k)
{
    for (int i = 0; i < m; i++, to += ld) {
        const void *row = rows_at(a, i, 0).data;
        if (a.dtype == DTYPE_BF16)
            memcpy(to, row, (size_t)k * sizeof *to);
        else
            dtype_narrow(to, DTYPE_BF16, row, k);
        memset(to + k, 0, (size_t)(tile_bf16_padded(k) - k) * sizeof *to);
    }
}

// 32 rows of a at most, of which k exist, and m columns.
ALWAYS_INLINE void transpose_rows(uint32_t *to, int64_t to_step, Rows a, int k, int m,
                                  const bool is_halves)
{
    uint32_t words[SIDE][SIDE], edge[SIDE * SIDE];
    for (int i = 0; i < m; i += SIDE, to += SIDE * to_step) {
        const int columns = min_int(SIDE, m - i);
        if (columns < SIDE || k < 2 * SIDE)
            memset(words, 0, sizeof words);
        for (int p = 0; p < k; p += 2) {
            const void *even = row_of(a, p, is_halves),
                       *odd = p + 1 < k ? row_of(a, p + 1, is_halves) : NULL;
            fetch(row_of(a, p + 2 * SIDE, is_halves), i, SIDE, is_halves);
            fetch(row_of(a, p + 2 * SIDE + 1, is_halves), i, SIDE, is_halves);
            if (columns == SIDE)
                weave(words[p / 2], even, odd, i, SIDE, is_halves);
            else
                weave(words[p / 2], even, odd, i, columns, is_halves);
        }
        if (columns == SIDE) {
            transpose_words(to, to_step, words);
            continue;
        }
        transpose_words(edge, SIDE, words);
        for (int r = 0; r < columns; r++)
            memcpy(to + r * to_step, edge + r * SIDE, SIDE * sizeof *to);
    }
}

HOT static void transpose_float_rows(uint32_t *to, int64_t to_step, Rows a, int k, int m)
{
    transpose_rows(to, to_step, a, k, m, false);
}

HOT static void transpose_half_rows(uint32_t *to, int64_t to_step, Rows a, int k, int m)
{
    transpose_rows(to, to_step, a, k, m, true);
}

void tile_bf16_transpose(uint16_t *to, int ld, Rows a, int k, int m)
{
    for (int p = 0; p < k; p += 2 * SIDE)
        (a.dtype == DTYPE_BF16 ? transpose_half_rows : transpose_float_rows)(
            (uint32_t *)(void *)(to + p), ld / 2, rows_at(a, p, 0), min_int(2 * SIDE, k - p), m);
}
