// Two by two tiles of sums, 32 rows x 32 columns: two tiles of rows of a and two of panels of b
// feed four products, so that the loads of a step, 4 KiB, take no longer than its products. 32 rows
// of a stay in the first cache, or near it, while b's panels pass.
//
// A product of tiles adds the pairs of its 32 numbers of k on their own, and then to the sum: an
// element is a chain over k / 32, which a c that is added to begins.
#define _GNU_SOURCE
#include "model/kernels/amx.h"
#include "model/kernels/tile_bf16_kernel.h"

#if defined(__x86_64__) && defined(__linux__)

#include <immintrin.h>

#define TARGET        __attribute__((target("avx512f")))
#define ALWAYS_INLINE __attribute__((always_inline)) static inline

enum { SIDE = 2 * AMX_ROWS }; // of a block

// Where a block's tiles load their first sums from and store them to.
typedef struct Block {
    float *c;
    int64_t row_bytes;
    const uint16_t *a, *b;
    const char *ahead; // rows of a that come next
    int ahead_rows;
} Block;

// One or two tiles of rows, one or two of columns; all are constants where this is inlined.
ALWAYS_INLINE void block_sums(const Block *block, const TileBf16Operands *o, bool from_c,
                              const bool two_rows, const bool two_columns)
{
    const int64_t a_bytes = o->lda * (int64_t)sizeof *o->a, row_bytes = block->row_bytes;
    char *upper = (char *)block->c, *lower = upper + AMX_ROWS * row_bytes;
    if (from_c) {
        AMX_LOAD(0, upper, row_bytes);
        if (two_columns)
            AMX_LOAD(1, upper + 64, row_bytes);
        if (two_rows)
            AMX_LOAD(2, lower, row_bytes);
        if (two_rows && two_columns)
            AMX_LOAD(3, lower + 64, row_bytes);
    } else {
        AMX_ZERO(0);
        AMX_ZERO(1);
        AMX_ZERO(2);
        AMX_ZERO(3);
    }
    const uint16_t *a = block->a, *b = block->b;
    for (int p = 0; p < o->k; p += AMX_STEP, a += AMX_STEP, b += AMX_HALVES) {
        for (int r = 0; r < block->ahead_rows; r++)
            _mm_prefetch(block->ahead + r * a_bytes + 2 * p, _MM_HINT_T1);
        AMX_LOAD(6, b, 64);
        AMX_LOAD(4, a, a_bytes);
        AMX_PRODUCT(0, 4, 6);
        if (two_columns) {
            AMX_LOAD(7, b + o->panel_step, 64);
            AMX_PRODUCT(1, 4, 7);
        }
        if (two_rows) {
            AMX_LOAD(5, a + (int64_t)AMX_ROWS * o->lda, a_bytes);
            AMX_PRODUCT(2, 5, 6);
        }
        if (two_rows && two_columns)
            AMX_PRODUCT(3, 5, 7);
    }
    AMX_STORE(0, upper, row_bytes);
    if (two_columns)
        AMX_STORE(1, upper + 64, row_bytes);
    if (two_rows)
        AMX_STORE(2, lower, row_bytes);
    if (two_rows && two_columns)
        AMX_STORE(3, lower + 64, row_bytes);
}

static void sums(const Block *block, const TileBf16Operands *o, bool from_c, bool two_rows,
                 bool two_columns)
{
    if (two_rows && two_columns)
        block_sums(block, o, from_c, true, true);
    else if (two_rows)
        block_sums(block, o, from_c, true, false);
    else if (two_columns)
        block_sums(block, o, from_c, false, true);
    else
        block_sums(block, o, from_c, false, false);
}

// n of 32 columns: masks of their halves.
ALWAYS_INLINE __mmask16 mask_of(int n, int first)
{
    const int count = n - first;
    return (__mmask16)(count >= 16 ? 0xffffu : count <= 0 ? 0u : (1u << count) - 1);
}

TARGET static void read_block(float *sums_to, const float *c, int64_t ldc, int m, int n)
{
    const __mmask16 left = mask_of(n, 0), right = mask_of(n, 16);
    for (int i = 0; i < m; i++, c += ldc, sums_to += SIDE) {
        _mm512_store_ps(sums_to, _mm512_maskz_loadu_ps(left, c));
        _mm512_store_ps(sums_to + 16, _mm512_maskz_loadu_ps(right, c + 16));
    }
}

TARGET static void write_block(float *c, int64_t ldc, const float *from, int m, int n)
{
    const __mmask16 left = mask_of(n, 0), right = mask_of(n, 16);
    for (int i = 0; i < m; i++, c += ldc, from += SIDE) {
        _mm512_mask_storeu_ps(c, left, _mm512_load_ps(from));
        _mm512_mask_storeu_ps(c + 16, right, _mm512_load_ps(from + 16));
    }
}

// Up to 32 x 32 of c: in place if they are whole tiles, else through a copy.
static void multiply_block(const TileBf16Operands *o, Block *block, float *c, int m, int n)
{
    _Alignas(64) float copy[SIDE * SIDE];
    const bool two_rows = m > AMX_ROWS, two_columns = n > AMX_ROWS;
    if (n % AMX_ROWS == 0) {
        block->c = c;
        block->row_bytes = o->ldc * (int64_t)sizeof(float);
        sums(block, o, o->add, two_rows, two_columns);
        return;
    }
    block->c = copy;
    block->row_bytes = SIDE * sizeof(float);
    if (o->add)
        read_block(copy, c, o->ldc, m, n);
    sums(block, o, o->add, two_rows, two_columns);
    write_block(c, o->ldc, copy, m, n);
}

// `rows` rows from i on. The rows of a that come next are fetched evenly over the blocks of these.
static void multiply_rows(const TileBf16Operands *o, int i, int rows, int m, int n)
{
    const int n_blocks = ceil_div(n, SIDE);
    const bool is_last = i + rows == m;
    const uint16_t *a = o->a + (int64_t)i * o->lda,
                   *next = is_last ? o->ahead : a + (int64_t)rows * o->lda;
    const int n_ahead = is_last ? o->ahead_rows : min_int(m - i - rows, SIDE);
    for (int j = 0; j < n_blocks; j++) {
        const int first = n_ahead * j / n_blocks;
        Block block = {
            .a = a,
            .b = o->b + 2 * j * o->panel_step,
            .ahead = (const char *)next + first * o->lda * (int64_t)sizeof *next,
            .ahead_rows = n_ahead * (j + 1) / n_blocks - first,
        };
        multiply_block(o, &block, o->c + (int64_t)i * o->ldc + j * SIDE, rows,
                       min_int(SIDE, n - j * SIDE));
    }
}

// A configuration is changed for rows that are not whole tiles alone: the change waits for all
// loads.
static void multiply(const TileBf16Operands *o, int m, int n)
{
    for (int i = 0; i < m; i += SIDE) {
        const int rows = min_int(SIDE, m - i);
        const bool is_whole = rows % AMX_ROWS == 0;
        if (!is_whole)
            amx_configure(min_int(AMX_ROWS, rows), rows > AMX_ROWS ? rows - AMX_ROWS : AMX_ROWS);
        multiply_rows(o, i, rows, m, n);
        if (!is_whole)
            amx_configure(AMX_ROWS, AMX_ROWS);
    }
}

static void start(void)
{
    amx_configure(AMX_ROWS, AMX_ROWS);
}

const TileBf16Kernel tile_bf16_amx = {start, amx_release, multiply, tile_bf16_round_avx512};

#else

const TileBf16Kernel tile_bf16_amx = {0};

#endif
