// Activations are packed, 16 pairs of inputs x 16 tokens, as the instruction wants them; sums are
// 16 outputs x 16 tokens in float32, to which the products of both parts are added. Of the eight
// tiles four are sums, two outputs x two tokens, so that two tiles of weights and four of
// activations feed eight products.
//
//     packed: | tokens 0 to 15: step 0: high, low; step 1: high, low; ... | tokens 16 to 31 ...
//             (1 KiB each part)
#include "model/kernels/weights/weight_amx_many.h"

#include "base/intmath.h"
#include "model/kernels/weights/weight_amx_tiles.h"

#if defined(__x86_64__) && defined(__linux__)

enum {
    SIDE = AMX_ROWS, // tokens of a tile
    STEP_HALVES = PARTS * AMX_HALVES,
    COLUMNS = 2 * SIDE, // tokens whose sums are computed together
    CACHED_BYTES = 1 << 20,
};

int64_t weight_amx_many_packed_bytes(int N, int n_in)
{
    return (int64_t)ceil_div(N, SIDE) * steps_of(n_in) * STEP_HALVES * (int64_t)sizeof(uint16_t);
}

// One step of up to 16 tokens; `x` at the step's first input, of which `left` exist. Columns of
// tokens that are not there are 0.
TARGET static void pack_step(uint16_t *packed, const float *x, int ldx, int n_tokens, int left)
{
    const unsigned first_mask = left >= 16 ? 0xffffu : (1u << left) - 1;
    const unsigned second_mask = left >= STEP ? 0xffffu : left > 16 ? (1u << (left - 16)) - 1 : 0;
    const __mmask16 first = (__mmask16)first_mask, second = (__mmask16)second_mask;
    __m512 columns[PARTS][SIDE];
    UNROLLED(for (int t = 0; t < SIDE; t++))
    {
        __m512i parts[PARTS] = {_mm512_setzero_si512()};
        if (t < n_tokens)
            split(parts, _mm512_maskz_loadu_ps(first, x + (int64_t)t * ldx),
                  _mm512_maskz_loadu_ps(second, x + (int64_t)t * ldx + 16));
        UNROLLED(for (int p = 0; p < PARTS; p++))
        columns[p][t] = _mm512_castsi512_ps(parts[p]);
    }
    for (int p = 0; p < PARTS; p++) {
        transpose(columns[p]);
        UNROLLED(for (int i = 0; i < SIDE; i++))
        _mm512_store_ps(packed + p * AMX_HALVES + transposed_row(i) * STEP, columns[p][i]);
    }
}

void weight_amx_many_pack(uint16_t *packed, const float *x, int ldx, int N, int n_in)
{
    const int n_steps = steps_of(n_in), n_tiles = ceil_div(N, SIDE);
#pragma omp for collapse(2) schedule(static)
    for (int tile = 0; tile < n_tiles; tile++)
        for (int s = 0; s < n_steps; s++)
            pack_step(packed + ((int64_t)tile * n_steps + s) * STEP_HALVES,
                      x + (int64_t)tile * SIDE * ldx + s * STEP, ldx,
                      min_int(SIDE, N - tile * SIDE), n_in - s * STEP);
}

// sums [16 or 32, COLUMNS] of one or two tiles of tokens, tile_step apart.
ALWAYS_INLINE void multiply_tiles(float *sums, const WeightTiles *tiles, const uint16_t *x,
                                  int64_t tile_step, const bool two_rows, const bool two_columns)
{
    const char *w = (const char *)tiles->rows;
    int64_t row_bytes = tiles->row_bytes;
    zero_sums(two_rows, two_columns);
    for (int s = 0; s < tiles->n_steps; s++, w += tiles->step_bytes) {
        if (s == tiles->n_whole) {
            w = (const char *)tiles->tail;
            row_bytes = STEP_BYTES;
        }
        AMX_LOAD(4, w, row_bytes);
        if (two_rows)
            AMX_LOAD(5, w + SIDE * row_bytes, row_bytes);
        UNROLLED(for (int part = 0; part < PARTS; part++, x += AMX_HALVES))
        {
            AMX_LOAD(6, x, 64);
            AMX_PRODUCT(0, 4, 6);
            if (two_rows)
                AMX_PRODUCT(2, 5, 6);
            if (two_columns) {
                AMX_LOAD(7, x + tile_step, 64);
                AMX_PRODUCT(1, 4, 7);
            }
            if (two_rows && two_columns)
                AMX_PRODUCT(3, 5, 7);
        }
    }
    store_sums(sums, COLUMNS, two_rows, two_columns);
}

// y of up to 16 outputs and up to 16 tokens.
TARGET static void finish(float *y, int ldy, const float *sums, int n_tokens, int n_rows, bool add)
{
    __m512 a[SIDE];
    UNROLLED(for (int r = 0; r < SIDE; r++))
    a[r] = _mm512_load_ps(sums + r * COLUMNS);
    write_outputs(y, ldy, a, n_tokens, n_rows, add);
}

// One block of outputs, up to 32, of tokens [first_token, end_token).
static void multiply_rows(float *y, int ldy, float *sums, const WeightTiles *tiles,
                          const uint16_t *packed, int first_token, int end_token, bool add)
{
    const int64_t tile_step = (int64_t)tiles->n_steps * STEP_HALVES;
    const bool two_rows = tiles->count > SIDE;
    for (int token = first_token; token < end_token; token += COLUMNS) {
        const uint16_t *x = packed + token / SIDE * tile_step;
        const int n = min_int(COLUMNS, end_token - token);
        if (two_rows && n > SIDE)
            multiply_tiles(sums, tiles, x, tile_step, true, true);
        else if (two_rows)
            multiply_tiles(sums, tiles, x, tile_step, true, false);
        else if (n > SIDE)
            multiply_tiles(sums, tiles, x, tile_step, false, true);
        else
            multiply_tiles(sums, tiles, x, tile_step, false, false);
        for (int r = 0; r < tiles->count; r += SIDE)
            for (int t = 0; t < n; t += SIDE)
                finish(y + (int64_t)(token + t) * ldy + r, ldy, sums + r * COLUMNS + t,
                       min_int(SIDE, n - t), min_int(SIDE, tiles->count - r), add);
    }
}

// Tokens in whole pairs of tiles whose packed numbers stay in the second cache while all outputs
// pass.
static int tokens_at_once(int n_in)
{
    const int pairs = (int)(CACHED_BYTES / weight_amx_many_packed_bytes(COLUMNS, n_in));
    return (pairs > 0 ? pairs : 1) * COLUMNS;
}

void weight_amx_many_dots(const WeightOperands *operands, const uint16_t *packed, int first,
                          int count)
{
    _Alignas(64) float sums[2 * AMX_ROWS * COLUMNS];
    dots_by(multiply_rows, sums, COLUMNS, operands, packed, first, count,
            tokens_at_once(operands->n_in));
}

#else

int64_t weight_amx_many_packed_bytes(int N, int n_in)
{
    (void)N, (void)n_in;
    return 0;
}

void weight_amx_many_pack(uint16_t *packed, const float *x, int ldx, int N, int n_in)
{
    (void)packed, (void)x, (void)ldx, (void)N, (void)n_in;
}

void weight_amx_many_dots(const WeightOperands *operands, const uint16_t *packed, int first,
                          int count)
{
    (void)operands, (void)packed, (void)first, (void)count;
}

#endif
