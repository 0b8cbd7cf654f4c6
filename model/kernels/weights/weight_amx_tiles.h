// What the products by AMX's tiles share: instructions, the parts of a float, fetching. Private to
// model/kernels/weights.
#ifndef MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_AMX_TILES_H
#define MHA2MLA_MODEL_KERNELS_WEIGHTS_WEIGHT_AMX_TILES_H

#if defined(__x86_64__) && defined(__linux__)

#include "base/intmath.h"
#include "base/status.h"
#include "model/kernels/amx.h"
#include "model/kernels/weights/weight_kernel.h"
#include "model/kernels/weights/weight_matrix.h"

#include <immintrin.h>
#include <string.h>

enum {
    PARTS = 3,       // of a float
    STEP = AMX_STEP, // inputs of a tile
    STEP_BYTES = 2 * STEP,
    AHEAD_BYTES = 1 << 10 // a tile
};

#define TARGET         __attribute__((target("avx512f,avx512bw,avx2,fma")))
#define ALWAYS_INLINE  __attribute__((always_inline)) static inline
#define UNROLLED(loop) _Pragma("GCC unroll 32") loop

// The parts of 32 floats, each as 16 pairs of bfloat16. Cutting off bits is exact: what is left of
// 24 bits after the first 8 fits a float, and after the second 8 a bfloat16.
TARGET ALWAYS_INLINE void split(__m512i parts[PARTS], __m512 even, __m512 odd)
{
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    // Words 1, 3, 5 ... of both: the upper halves.
    const __m512i upper =
        _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                         25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    UNROLLED(for (int p = 0; p < PARTS; p++))
    {
        const __m512i a = _mm512_castps_si512(even), b = _mm512_castps_si512(odd);
        parts[p] = _mm512_permutex2var_epi16(a, upper, b);
        even = _mm512_sub_ps(even, _mm512_castsi512_ps(_mm512_and_si512(a, high)));
        odd = _mm512_sub_ps(odd, _mm512_castsi512_ps(_mm512_and_si512(b, high)));
    }
}

// The lines of the step, AHEAD_BYTES further on: tiles are loaded late, one after the other, and
// their misses would be, too. Farther is slower (bench/results.md).
ALWAYS_INLINE void fetch_ahead(const char *w, const int tiles)
{
    UNROLLED(for (int line = 0; line < tiles * AMX_ROWS; line++))
    __builtin_prefetch(w + AHEAD_BYTES + line * STEP_BYTES, 0, 2);
}

static inline int steps_of(int n_in)
{
    return ceil_div(n_in, STEP);
}

// Rows of weights as tiles read them: in place but for the last step, which is copied if it is
// short.
typedef struct WeightTiles {
    const uint16_t *rows;
    int64_t row_bytes, step_bytes; // from one row or step to the next
    int count, n_steps, n_whole;   // rows, steps, steps that are read in place
    bool is_blocked;
    _Alignas(64) uint16_t tail[2 * AMX_ROWS * STEP];
} WeightTiles;

static inline void set_rows(WeightTiles *tiles, const WeightOperands *operands, int first,
                            int count)
{
    const int n_in = operands->n_in, left = n_in % STEP;
    const int height = min_int(WEIGHT_BLOCK, operands->n_out - first); // of a block
    tiles->rows = (const uint16_t *)operands->w + (int64_t)first * n_in;
    tiles->is_blocked = operands->layout == WEIGHT_BLOCKS;
    tiles->row_bytes = tiles->is_blocked ? STEP_BYTES : n_in * (int64_t)sizeof(uint16_t);
    tiles->step_bytes = tiles->is_blocked ? height * STEP_BYTES : STEP_BYTES;
    tiles->count = count;
    tiles->n_steps = steps_of(n_in);
    tiles->n_whole = n_in / STEP;
    if (left == 0)
        return;
    memset(tiles->tail, 0, sizeof tiles->tail);
    for (int r = 0; r < count; r++)
        memcpy(tiles->tail + r * STEP, tiles->rows + (int64_t)r * n_in + tiles->n_whole * STEP,
               (size_t)left * sizeof(uint16_t));
}

#define TRANSPOSE_ROUND(to, from, step, LOW, HIGH)                                                 \
    UNROLLED(for (int i = 0; i < 16; i++))                                                         \
    if ((i & (step)) == 0) {                                                                       \
        (to)[i] = LOW((from)[i], (from)[i + (step)]);                                              \
        (to)[i + (step)] = HIGH((from)[i], (from)[i + (step)]);                                    \
    }
#define LOW_1(a, b)  _mm512_unpacklo_ps(a, b)
#define HIGH_1(a, b) _mm512_unpackhi_ps(a, b)
#define LOW_2(a, b)  _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
#define HIGH_2(a, b) _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
#define LOW_4(a, b)  _mm512_shuffle_f32x4(a, b, 0x88)
#define HIGH_4(a, b) _mm512_shuffle_f32x4(a, b, 0xdd)

// 16 x 16 floats, in place; r[i] is row transposed_row(i) of the result, where the rounds put it.
TARGET ALWAYS_INLINE void transpose(__m512 r[16])
{
    __m512 other[16];
    TRANSPOSE_ROUND(other, r, 1, LOW_1, HIGH_1)
    TRANSPOSE_ROUND(r, other, 2, LOW_2, HIGH_2)
    TRANSPOSE_ROUND(other, r, 4, LOW_4, HIGH_4)
    TRANSPOSE_ROUND(r, other, 8, LOW_4, HIGH_4)
}

static inline int transposed_row(int i)
{
    return (i & 12) | (i >> 1 & 1) | (i & 1) << 1;
}

// Sums of one or two tiles of outputs x one or two of columns: tiles 0, 1 the upper outputs', 2, 3
// the lower ones'.
ALWAYS_INLINE void zero_sums(const bool two_rows, const bool two_columns)
{
    AMX_ZERO(0);
    if (two_columns)
        AMX_ZERO(1);
    if (two_rows)
        AMX_ZERO(2);
    if (two_rows && two_columns)
        AMX_ZERO(3);
}

// To sums [16 or 32, columns].
ALWAYS_INLINE void store_sums(float *sums, const int columns, const bool two_rows,
                              const bool two_columns)
{
    const int64_t stride = columns * (int64_t)sizeof *sums;
    AMX_STORE(0, sums, stride);
    if (two_columns)
        AMX_STORE(1, sums + AMX_ROWS, stride);
    if (two_rows)
        AMX_STORE(2, sums + AMX_ROWS * columns, stride);
    if (two_rows && two_columns)
        AMX_STORE(3, sums + AMX_ROWS * columns + AMX_ROWS, stride);
}

// y of up to 16 outputs and up to 16 tokens = or += the sums, whose rows are outputs.
TARGET ALWAYS_INLINE void write_outputs(float *y, int ldy, __m512 sums[16], int n_tokens,
                                        int n_rows, bool add)
{
    const __mmask16 rows = (__mmask16)((1u << n_rows) - 1);
    transpose(sums);
    UNROLLED(for (int i = 0; i < 16; i++))
    {
        const int t = transposed_row(i);
        if (t < n_tokens) {
            float *to = y + (int64_t)t * ldy;
            if (add)
                sums[i] = _mm512_add_ps(sums[i], _mm512_maskz_loadu_ps(rows, to));
            _mm512_mask_storeu_ps(to, rows, sums[i]);
        }
    }
}

// One block of outputs, up to 32, of tokens [first_token, end_token): y at the block's first
// output.
typedef void MultiplyRows(float *y, int ldy, float *sums, const WeightTiles *tiles,
                          const uint16_t *packed, int first_token, int end_token, bool add);

// Outputs [first, first + count) of all tokens, of n_tokens at a time: their packed numbers stay in
// the second cache while all outputs pass. A configuration is changed for rows that are not whole
// tiles alone: the change waits for all loads.
ALWAYS_INLINE void dots_by(MultiplyRows *const multiply_rows,
                           float *sums, // [2 AMX_ROWS, columns]
                           const int columns, const WeightOperands *operands,
                           const uint16_t *packed, int first, int count, int n_tokens)
{
    WeightTiles tiles;
    const int N = operands->N, end = first + count;
    const bool is_whole = count % AMX_ROWS == 0;
    CHECK(operands->layout != WEIGHT_BLOCKS || first % WEIGHT_BLOCK == 0, "outputs from %d on",
          first);
    if (!is_whole) // sums of outputs that do not exist are read, though not stored
        memset(sums, 0, (size_t)(2 * AMX_ROWS * columns) * sizeof *sums);
    for (int token = 0; token < N; token += n_tokens) {
        for (int row = first; row < end; row += 2 * AMX_ROWS) {
            const int n_rows = min_int(2 * AMX_ROWS, end - row);
            if (!is_whole && n_rows < 2 * AMX_ROWS) // the last
                amx_configure(min_int(AMX_ROWS, n_rows),
                              n_rows > AMX_ROWS ? n_rows - AMX_ROWS : AMX_ROWS);
            set_rows(&tiles, operands, row, n_rows);
            multiply_rows(operands->y + row, operands->ldy, sums, &tiles, packed, token,
                          min_int(token + n_tokens, N), operands->add);
        }
        if (!is_whole)
            amx_configure(AMX_ROWS, AMX_ROWS);
    }
}

#endif

#endif
