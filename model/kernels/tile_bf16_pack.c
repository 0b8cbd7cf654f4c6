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
    SIDE = 16, // words
    // Rows to prefetch lie too far apart for the hardware's prefetcher.
    MAX_AHEAD = 16,
    AHEAD_BYTES = 4 << 10,
};

// Unaligned, since rows may begin anywhere, and may_alias, since the memory holds other types.
typedef uint32_t Words __attribute__((vector_size(64), aligned(2), may_alias));
typedef uint16_t Halves __attribute__((vector_size(32), aligned(2), may_alias));

ALWAYS_INLINE uint32_t half_at(const void *row, int64_t i, const bool is_halves)
{
    return is_halves ? ((const uint16_t *)row)[i] : half_f32_to_bf16(((const float *)row)[i]);
}

// half_f32_to_bf16() of 16 floats, in the upper halves; the lower halves are anything.
ALWAYS_INLINE void round_words(Words *words)
{
    const Words bits = *words, odd = bits >> 16 & 1,
                is_nan = (Words)((bits & 0x7fffffffu) > 0x7f800000u),
                quiet = (Words)((bits & 0x007f0000u) == 0) & 0x00400000u;
    *words = (is_nan & (bits | quiet)) | (~is_nan & (bits + 0x7fffu + odd));
}

// 16 words of two rows of 16 numbers.
ALWAYS_INLINE void weave(uint32_t *words, const void *even, const void *odd, int64_t first,
                         const bool is_halves)
{
    if (is_halves) {
        const Words lower =
            __builtin_convertvector(*(const Halves *)((const uint16_t *)even + first), Words);
        const Words upper =
            __builtin_convertvector(*(const Halves *)((const uint16_t *)odd + first), Words);
        *(Words *)words = lower | upper << 16;
    } else {
        Words lower = *(const Words *)((const float *)even + first);
        Words upper = *(const Words *)((const float *)odd + first);
        round_words(&lower);
        round_words(&upper);
        *(Words *)words = lower >> 16 | (upper & 0xffff0000u);
    }
}

// n <= 16 words of two rows, zeros beyond; `odd` NULL: zeros.
ALWAYS_INLINE void weave_edge(uint32_t *words, const void *even, const void *odd, int64_t first,
                              int n, const bool is_halves)
{
    memset(words, 0, SIDE * sizeof *words);
    for (int j = 0; j < n; j++)
        words[j] = half_at(even, first + j, is_halves) |
                   (odd == NULL ? 0 : half_at(odd, first + j, is_halves) << 16);
}

// 16 words of 32 numbers side by side.
ALWAYS_INLINE void narrow(uint32_t *words, const void *from, int64_t first, const bool is_halves)
{
    if (is_halves) {
        *(Words *)words = *(const Words *)((const uint16_t *)from + first);
        return;
    }
    const Words *floats = (const Words *)((const float *)from + first);
    Words lower = __builtin_shufflevector(floats[0], floats[1], 0, 2, 4, 6, 8, 10, 12, 14, 16, 18,
                                          20, 22, 24, 26, 28, 30);
    Words upper = __builtin_shufflevector(floats[0], floats[1], 1, 3, 5, 7, 9, 11, 13, 15, 17, 19,
                                          21, 23, 25, 27, 29, 31);
    round_words(&lower);
    round_words(&upper);
    *(Words *)words = lower >> 16 | (upper & 0xffff0000u);
}

// The same of `count` numbers, zeros beyond.
ALWAYS_INLINE void narrow_edge(uint32_t *words, const void *from, int64_t first, int count,
                               const bool is_halves)
{
    memset(words, 0, SIDE * sizeof *words);
    for (int i = 0; i < count; i++)
        words[i / 2] |= half_at(from, first + i, is_halves) << i % 2 * 16;
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

// ---- rows -> panels ----------------------------------------------------------------------------

ALWAYS_INLINE void pack_rows(uint32_t *panels, int64_t panel_step, Rows b, int k, int n,
                             const bool is_halves)
{
    const int row_bytes = n * (is_halves ? 2 : 4);
    const int ahead = min_int(AHEAD_BYTES / row_bytes + 1, MAX_AHEAD / 2) * 2;
    for (int p = 0; p < k; p += 2) {
        const void *even = row_of(b, p, is_halves),
                   *odd = p + 1 < k ? row_of(b, p + 1, is_halves) : NULL;
        uint32_t *to = panels + (int64_t)p / 2 * SIDE;
        int j = 0;
        fetch(row_of(b, p + ahead, is_halves), 0, n, is_halves);
        fetch(row_of(b, p + ahead + 1, is_halves), 0, n, is_halves);
        for (; j + SIDE <= n && odd != NULL; j += SIDE, to += panel_step)
            weave(to, even, odd, j, is_halves);
        for (; j < n; j += SIDE, to += panel_step)
            weave_edge(to, even, odd, j, min_int(SIDE, n - j), is_halves);
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
        for (int r = 0; r < n; r++) {
            const void *row = row_of(b, r, is_halves);
            fetch(row_of(b, r + SIDE, is_halves), p, 2 * SIDE, is_halves);
            if (p + 2 * SIDE <= k)
                narrow(words[r], row, p, is_halves);
            else
                narrow_edge(words[r], row, p, k - p, is_halves);
        }
        transpose16(panel, SIDE, words[0], SIDE);
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
        if (k < 2 * SIDE)
            memset(words, 0, sizeof words);
        for (int p = 0; p < k; p += 2) {
            const void *even = row_of(a, p, is_halves),
                       *odd = p + 1 < k ? row_of(a, p + 1, is_halves) : NULL;
            fetch(row_of(a, p + 2 * SIDE, is_halves), i, SIDE, is_halves);
            fetch(row_of(a, p + 2 * SIDE + 1, is_halves), i, SIDE, is_halves);
            if (columns == SIDE && odd != NULL)
                weave(words[p / 2], even, odd, i, is_halves);
            else
                weave_edge(words[p / 2], even, odd, i, columns, is_halves);
        }
        if (columns == SIDE) {
            transpose16(to, to_step, words[0], SIDE);
            continue;
        }
        transpose16(edge, SIDE, words[0], SIDE);
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
