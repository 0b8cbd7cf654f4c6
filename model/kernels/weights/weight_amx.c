// A tile holds 16 rows of 64 bytes. Weights are read in place, 16 outputs x 32 inputs, whether they
// lie in rows or in blocks (weight_matrix.h); activations are packed, 16 pairs of inputs x 16
// columns, as the instruction wants them; sums are 16 outputs x 16 columns in float32. Of the eight
// tiles, four are sums, two outputs x two columns, so that two tiles of weights and two of
// activations feed four products.
//
// Tokens form groups of up to 32. The columns of a group of n are the n high parts of its tokens,
// then the n middle parts, then the n low parts, so that up to five tokens take one tile.
//
//     packed: | group 0: tile 0: step 0, step 1, ... | tile 1 ... | group 1 ...    (1 KiB each
//     step)
#include "model/kernels/weights/weight_amx.h"

#include "base/intmath.h"
#include "model/kernels/amx.h"
#include "model/kernels/weights/weight_amx_tiles.h"

#if defined(__x86_64__) && defined(__linux__)

enum {
    GROUP = 32,              // tokens
    COLUMNS = GROUP * PARTS, // of a group
    CACHED_BYTES = 512 << 10,
};

// ---- the machine -------------------------------------------------------------------------------

bool weight_amx_works(void)
{
    return amx_is_there();
}

// ---- packing -----------------------------------------------------------------------------------

static int tiles_of(int n_tokens)
{
    return ceil_div(n_tokens * PARTS, 16);
}

// Of the tokens before the group that begins with `token`.
static int64_t tiles_before(int token)
{
    return (int64_t)(token / GROUP) * tiles_of(GROUP);
}

int64_t weight_amx_packed_bytes(int N, int n_in)
{
    const int64_t tiles = tiles_before(N) + tiles_of(N % GROUP);
    return tiles * steps_of(n_in) * AMX_HALVES * (int64_t)sizeof(uint16_t);
}

// One step of a group's tokens; `x` at the step's first input, of which `left` exist.
TARGET static void pack_step(uint16_t *packed, int64_t tile_step, const float *x, int ldx,
                             int n_tokens, int left)
{
    const unsigned first_mask = left >= 16 ? 0xffffu : (1u << left) - 1;
    const unsigned second_mask = left >= STEP ? 0xffffu : left > 16 ? (1u << (left - 16)) - 1 : 0;
    const __mmask16 first = (__mmask16)first_mask, second = (__mmask16)second_mask;
    const __m512i rows =
        _mm512_set_epi32(240, 224, 208, 192, 176, 160, 144, 128, 112, 96, 80, 64, 48, 32, 16, 0);
    for (int t = 0; t < n_tokens; t++, x += ldx) {
        __m512i parts[PARTS];
        split(parts, _mm512_maskz_loadu_ps(first, x), _mm512_maskz_loadu_ps(second, x + 16));
        UNROLLED(for (int p = 0; p < PARTS; p++))
        {
            const int column = p * n_tokens + t;
            _mm512_i32scatter_epi32((int *)(void *)(packed + column / 16 * tile_step) + column % 16,
                                    rows, parts[p], 4);
        }
    }
}

void weight_amx_pack(uint16_t *packed, const float *x, int ldx, int N, int n_in)
{
    const int n_steps = steps_of(n_in), n_groups = ceil_div(N, GROUP);
    const int64_t tile_step = (int64_t)n_steps * AMX_HALVES;
#pragma omp for collapse(2) schedule(static)
    for (int g = 0; g < n_groups; g++)
        for (int s = 0; s < n_steps; s++) {
            const int token = g * GROUP, n = min_int(GROUP, N - token);
            uint16_t *to = packed + tiles_before(token) * tile_step + (int64_t)s * AMX_HALVES;
            // The last tile's columns beyond the tokens' give sums that nobody reads.
            pack_step(to, tile_step, x + (int64_t)token * ldx + s * STEP, ldx, n, n_in - s * STEP);
        }
}

// ---- products ----------------------------------------------------------------------------------

void weight_amx_start(void)
{
    amx_configure(AMX_ROWS, AMX_ROWS);
}

void weight_amx_end(void)
{
    amx_release();
}

// sums [16 or 32, COLUMNS] at the columns' place, of one or two tiles of columns.
ALWAYS_INLINE void multiply_tiles(float *sums, const WeightTiles *tiles, const uint16_t *x,
                                  int64_t tile_step, const bool two_rows, const bool two_columns,
                                  bool is_ahead)
{
    const char *w = (const char *)tiles->rows;
    int64_t row_bytes = tiles->row_bytes;
    zero_sums(two_rows, two_columns);
    for (int s = 0; s < tiles->n_steps; s++, w += tiles->step_bytes, x += AMX_HALVES) {
        if (is_ahead)
            fetch_ahead(w, two_rows ? 2 : 1);
        if (s == tiles->n_whole) {
            w = (const char *)tiles->tail;
            row_bytes = STEP_BYTES;
        }
        AMX_LOAD(6, x, 64);
        AMX_LOAD(4, w, row_bytes);
        AMX_PRODUCT(0, 4, 6);
        if (two_columns) {
            AMX_LOAD(7, x + tile_step, 64);
            AMX_PRODUCT(1, 4, 7);
        }
        if (two_rows) {
            AMX_LOAD(5, w + AMX_ROWS * row_bytes, row_bytes);
            AMX_PRODUCT(2, 5, 6);
        }
        if (two_rows && two_columns)
            AMX_PRODUCT(3, 5, 7);
    }
    store_sums(sums, COLUMNS, two_rows, two_columns);
}

// The weights of the first tiles of columns come from memory, those of the others from the caches.
static void multiply_group(float *sums, const WeightTiles *tiles, const uint16_t *x, int n_tiles,
                           bool is_first)
{
    const int64_t tile_step = (int64_t)tiles->n_steps * AMX_HALVES;
    const bool two_rows = tiles->count > AMX_ROWS;
    bool is_ahead = is_first && tiles->is_blocked;
    int c = 0;
    for (; c + 2 <= n_tiles; c += 2, x += 2 * tile_step, is_ahead = false) {
        if (two_rows)
            multiply_tiles(sums + c * 16, tiles, x, tile_step, true, true, is_ahead);
        else
            multiply_tiles(sums + c * 16, tiles, x, tile_step, false, true, is_ahead);
    }
    if (c == n_tiles)
        return;
    if (two_rows)
        multiply_tiles(sums + c * 16, tiles, x, tile_step, true, false, is_ahead);
    else
        multiply_tiles(sums + c * 16, tiles, x, tile_step, false, false, is_ahead);
}

// y of up to 16 outputs and up to 16 tokens of a group of n: the sums of the three parts.
TARGET static void finish(float *y, int ldy, const float *sums, int n, int n_tokens, int n_rows,
                          bool add)
{
    __m512 a[16];
    const __mmask16 tokens = (__mmask16)((1u << n_tokens) - 1);
    UNROLLED(for (int r = 0; r < 16; r++))
    {
        const float *row = sums + r * COLUMNS;
        a[r] = _mm512_add_ps(_mm512_maskz_loadu_ps(tokens, row + 2 * n),
                             _mm512_maskz_loadu_ps(tokens, row + n));
        a[r] = _mm512_add_ps(a[r], _mm512_maskz_loadu_ps(tokens, row));
    }
    write_outputs(y, ldy, a, n_tokens, n_rows, add);
}

// One block of outputs, up to 32, of tokens [first_token, end_token).
static void multiply_rows(float *y, int ldy, float *sums, const WeightTiles *tiles,
                          const uint16_t *packed, int first_token, int end_token, bool add)
{
    const int64_t tile_step = (int64_t)tiles->n_steps * AMX_HALVES;
    for (int token = first_token; token < end_token; token += GROUP) {
        const int n = min_int(GROUP, end_token - token);
        multiply_group(sums, tiles, packed + tiles_before(token) * tile_step, tiles_of(n),
                       token == 0);
        for (int r = 0; r < tiles->count; r += AMX_ROWS) {
            const int n_rows = min_int(AMX_ROWS, tiles->count - r);
            float *to = y + (int64_t)token * ldy + r;
            for (int t = 0; t < n; t += 16)
                finish(to + (int64_t)t * ldy, ldy, sums + r * COLUMNS + t, n, min_int(16, n - t),
                       n_rows, add);
        }
    }
}

// Whole groups whose packed numbers stay in the second cache while all outputs pass.
static int tokens_at_once(int n_in)
{
    const int groups = (int)(CACHED_BYTES / weight_amx_packed_bytes(GROUP, n_in));
    return (groups > 0 ? groups : 1) * GROUP;
}

void weight_amx_dots(const WeightOperands *operands, const uint16_t *packed, int first, int count)
{
    _Alignas(64) float sums[2 * AMX_ROWS * COLUMNS];
    dots_by(multiply_rows, sums, COLUMNS, operands, packed, first, count,
            tokens_at_once(operands->n_in));
}

#else

bool weight_amx_works(void)
{
    return false;
}

int64_t weight_amx_packed_bytes(int N, int n_in)
{
    (void)N, (void)n_in;
    return 0;
}

void weight_amx_pack(uint16_t *packed, const float *x, int ldx, int N, int n_in)
{
    (void)packed, (void)x, (void)ldx, (void)N, (void)n_in;
}

void weight_amx_start(void)
{
}

void weight_amx_end(void)
{
}

void weight_amx_dots(const WeightOperands *operands, const uint16_t *packed, int first, int count)
{
    (void)operands, (void)packed, (void)first, (void)count;
}

#endif
