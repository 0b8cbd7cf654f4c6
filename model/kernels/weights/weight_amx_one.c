// Of a token's three parts a tile of activations or sums takes four columns and not sixteen: a step
// is 256 bytes, and sums of 16 rows are four lines, which need no gathering.
//
//     packed: [n_in / 32][16 pairs of inputs][high, middle, low, unused][2]
#include "model/kernels/weights/weight_amx_one.h"

#include "base/intmath.h"
#include "model/kernels/weights/weight_amx_tiles.h"

#if defined(__x86_64__) && defined(__linux__)

enum {
    COLUMNS = 4,
    COLUMN_BYTES = 4, // two bfloat16 numbers, or a sum
    ROW_BYTES = COLUMNS * COLUMN_BYTES,
    STEP_NUMBERS = AMX_ROWS * 2 * COLUMNS // of packed activations
};

TARGET void weight_amx_one_pack(uint16_t *packed, const float *x, int n_in)
{
    const __m512i rows =
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60);
    for (int i = 0; i < n_in; i += STEP, packed += STEP_NUMBERS) {
        __m512i parts[PARTS];
        split(parts, _mm512_loadu_ps(x + i), _mm512_loadu_ps(x + i + 16));
        UNROLLED(for (int p = 0; p < PARTS; p++))
        _mm512_i32scatter_epi32((int *)(void *)packed + p, rows, parts[p], COLUMN_BYTES);
    }
}

// Tiles 0, 2: sums of the upper and the lower rows; 4, 5: their weights; 6: activations.
static void configure(int upper_rows, int lower_rows)
{
    _Alignas(64) AmxConfig config = {
        .palette = 1,
        .row_bytes =
            {[0] = ROW_BYTES, [2] = ROW_BYTES, [4] = STEP_BYTES, [5] = STEP_BYTES, [6] = ROW_BYTES},
        .rows = {[0] = (uint8_t)upper_rows,
                 [2] = (uint8_t)lower_rows,
                 [4] = (uint8_t)upper_rows,
                 [5] = (uint8_t)lower_rows,
                 [6] = AMX_ROWS}};
    amx_load_configuration(&config);
}

void weight_amx_one_start(void)
{
    configure(AMX_ROWS, AMX_ROWS);
}

// Column c of the sums of 16 rows.
TARGET ALWAYS_INLINE __m512 column(const __m512 sums[4], int c)
{
    const __m512i at = _mm512_add_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28),
        _mm512_set1_epi32(c));
    return _mm512_mask_blend_ps(0xff00, _mm512_permutex2var_ps(sums[0], at, sums[1]),
                                _mm512_permutex2var_ps(sums[2], at, sums[3]));
}

// y of up to 16 rows.
TARGET ALWAYS_INLINE void finish(float *y, const float *sums, int n_rows, bool add)
{
    __m512 four_rows[4];
    UNROLLED(for (int i = 0; i < 4; i++))
    four_rows[i] = _mm512_load_ps(sums + 16 * i);
    const __mmask16 rows = (__mmask16)(n_rows >= AMX_ROWS ? 0xffffu : (1u << n_rows) - 1);
    __m512 sum = _mm512_add_ps(column(four_rows, 2), column(four_rows, 1));
    sum = _mm512_add_ps(sum, column(four_rows, 0));
    if (add)
        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(rows, y));
    _mm512_mask_storeu_ps(y, rows, sum);
}

// A block that has more than 16 rows, or less, at most.
TARGET ALWAYS_INLINE void multiply(float *y, const uint16_t *packed, const char *w, int n_steps,
                                   int n_rows, bool add, const bool two_tiles)
{
    _Alignas(64) float sums[2 * AMX_ROWS * COLUMNS];
    const int64_t step_bytes = n_rows * (int64_t)STEP_BYTES;
    AMX_ZERO(0);
    if (two_tiles)
        AMX_ZERO(2);
    for (int s = 0; s < n_steps; s++, w += step_bytes, packed += STEP_NUMBERS) {
        fetch_ahead(w, two_tiles ? 2 : 1);
        AMX_LOAD(6, packed, ROW_BYTES);
        AMX_LOAD(4, w, STEP_BYTES);
        AMX_PRODUCT(0, 4, 6);
        if (two_tiles) {
            AMX_LOAD(5, w + AMX_ROWS * STEP_BYTES, STEP_BYTES);
            AMX_PRODUCT(2, 5, 6);
        }
    }
    AMX_STORE(0, sums, ROW_BYTES);
    if (two_tiles)
        AMX_STORE(2, sums + AMX_ROWS * COLUMNS, ROW_BYTES);
    finish(y, sums, n_rows, add);
    if (two_tiles)
        finish(y + AMX_ROWS, sums + AMX_ROWS * COLUMNS, n_rows - AMX_ROWS, add);
}

TARGET void weight_amx_one_dots(const WeightOperands *operands, const uint16_t *packed, int block)
{
    const int first = block * WEIGHT_BLOCK, n_in = operands->n_in, n_steps = n_in / STEP;
    const int n_rows = min_int(WEIGHT_BLOCK, operands->n_out - first);
    const char *w = (const char *)operands->w + (int64_t)first * n_in * (STEP_BYTES / STEP);
    float *y = operands->y + first;
    const bool is_whole = n_rows % AMX_ROWS == 0;
    if (!is_whole) // the last block: the rest of its tile does not exist
        configure(min_int(n_rows, AMX_ROWS), n_rows > AMX_ROWS ? n_rows - AMX_ROWS : AMX_ROWS);
    if (n_rows > AMX_ROWS)
        multiply(y, packed, w, n_steps, n_rows, operands->add, true);
    else
        multiply(y, packed, w, n_steps, n_rows, operands->add, false);
    if (!is_whole)
        configure(AMX_ROWS, AMX_ROWS);
}

#else

void weight_amx_one_pack(uint16_t *packed, const float *x, int n_in)
{
    (void)packed, (void)x, (void)n_in;
}

void weight_amx_one_start(void)
{
}

void weight_amx_one_dots(const WeightOperands *operands, const uint16_t *packed, int block)
{
    (void)operands, (void)packed, (void)block;
}

#endif
